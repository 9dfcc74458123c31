"""The job queue, in SQL. Every function is one step inside the caller's transaction.

queued -> running (claim) -> succeeded | failed, or queued again after a failure or a lost lease; cancelled from either.
`attempts` counts the claims and is the fence: a worker that lost its lease holds an older number and changes nothing.
`now`, `lease_until`, `not_before` and `retry_at` are seconds since the epoch (`time.time()`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, ScalarSelect, Update, func, select, update
from sqlalchemy import insert as insert_into

from callreel import clock
from callreel.errors import Conflict, InvalidInput, NotFound
from callreel.storage.pages import DEFAULT_LIMIT, Page, newest_first
from callreel.storage.tables import job

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
PRIORITIES = ("high", "normal", "low")  # in the order they are claimed


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work; `usage` is {wall_s, cpu_s, peak_rss_bytes, audio_s, rtfx}, `error` {code, message, hint}."""

    id: str
    client_id: str
    kind: str
    state: State
    priority: str
    attempts: int
    max_attempts: int
    lease_until: float | None
    not_before: float
    params: dict[str, Any]
    progress: dict[str, Any]
    call_id: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    usage: dict[str, Any] | None
    created_at: str
    started_at: str | None
    finished_at: str | None


def enqueue(
    conn: Connection,
    *,
    client_id: str,
    kind: str,
    params: dict[str, Any],
    priority: str = "normal",
    call_id: str | None = None,
    job_id: str | None = None,
) -> Job:
    """Add a queued job. `job_id` is for a caller that named it beforehand. Raises InvalidInput for the priority."""
    if priority not in PRIORITIES:
        raise InvalidInput(f"priority must be one of {', '.join(PRIORITIES)}.", field="priority")
    row = {
        "id": job_id or clock.new_id(),
        "client_id": client_id,
        "kind": kind,
        "priority": priority,
        "params": params,
        "call_id": call_id,
    }
    return Job(**conn.execute(insert_into(job).values(row).returning(job)).mappings().one())


def claim(conn: Connection, *, lease_s: float, now: float) -> Job | None:
    """Take the oldest job of the highest priority that may start by now, for `lease_s`; None when there is none."""
    waiting = job.alias("waiting")

    def oldest(priority: str) -> ScalarSelect[str]:
        return (
            select(waiting.c.id)
            .where(waiting.c.state == "queued", waiting.c.priority == priority, waiting.c.not_before <= now)
            .order_by(waiting.c.created_at, waiting.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)  # PostgreSQL: two workers never wait for one row
            .scalar_subquery()
        )

    # One look into the index a priority; sorting by priority instead would read the whole queue.
    taken = _one(
        conn,
        _change(job.c.id == func.coalesce(*map(oldest, PRIORITIES))).values(
            state="running",
            attempts=job.c.attempts + 1,
            lease_until=now + lease_s,
            started_at=clock.now(),
        ),
    )
    return None if taken is None else Job(**taken)


def heartbeat(conn: Connection, job_id: str, attempt: int, lease_s: float, now: float) -> bool:
    """Extend the lease to `now + lease_s`; False when this attempt is over and its worker should stop."""
    return _one(conn, _change(*_held(job_id, attempt)).values(lease_until=now + lease_s)) is not None


def progress(conn: Connection, job_id: str, attempt: int, progress: dict[str, Any]) -> bool:
    """Set {percent, step, eta_s}; False when this attempt is over and its worker should stop."""
    return _one(conn, _change(*_held(job_id, attempt)).values(progress=progress)) is not None


def succeed(conn: Connection, job_id: str, attempt: int, result: dict[str, Any], usage: dict[str, Any]) -> Job:
    """End the attempt with its result. Raises Conflict when it is over already."""
    return _end_attempt(
        conn, job_id, attempt, state="succeeded", result=result, usage=usage, error=None, finished_at=clock.now()
    )


def fail(conn: Connection, job_id: str, attempt: int, error: dict[str, Any], *, retry_at: float | None) -> Job:
    """End the attempt with its error: queued again from `retry_at` on while attempts are left, failed otherwise.

    Raises Conflict when the attempt is over already.
    """
    if retry_at is not None and attempt < get(conn, job_id).max_attempts:
        return _end_attempt(conn, job_id, attempt, state="queued", error=error, not_before=retry_at)
    return _end_attempt(conn, job_id, attempt, state="failed", error=error, finished_at=clock.now())


def release(conn: Connection, job_id: str, attempt: int) -> bool:
    """Queue a running job again because its worker stops, which is no fault of the job: it gets one attempt more.

    False if the attempt was over already.
    """
    given_back = _change(*_held(job_id, attempt)).values(
        state="queued", lease_until=None, max_attempts=job.c.max_attempts + 1
    )
    return _one(conn, given_back) is not None


def requeue_abandoned(conn: Connection, now: float, *, all_running: bool = False) -> list[str]:
    """Take running jobs from workers whose lease ran out; returns the ids of those queued again or failed.

    `all_running` takes every one, for the start of a server that is the only worker: nobody can be running them.
    """
    abandoned = [job.c.state == "running"] + ([] if all_running else [job.c.lease_until <= now])
    exhausted = {
        "code": "attempts_exhausted",
        "message": "The worker of this job was lost every time it was tried.",
        "hint": "See the worker's log, and give it more memory if it was killed; then send the job again.",
    }
    failed = _change(*abandoned, job.c.attempts >= job.c.max_attempts).values(
        state="failed", error=exhausted, lease_until=None, finished_at=clock.now()
    )
    requeued = _change(*abandoned).values(state="queued", lease_until=None)
    return [id for change in (failed, requeued) for id in conn.execute(change.returning(job.c.id)).scalars()]


def cancel(conn: Connection, job_id: str) -> Job:
    """Cancel a job that has not finished; its worker learns of it at its next heartbeat. Twice is harmless.

    Raises NotFound, and Conflict for one that succeeded or failed.
    """
    unfinished = (job.c.id == job_id, job.c.state.in_(("queued", "running")))
    values = {"state": "cancelled", "lease_until": None, "finished_at": clock.now()}
    if (row := _one(conn, _change(*unfinished).values(values))) is not None:
        return Job(**row)
    found = get(conn, job_id)
    if found.state != "cancelled":
        raise Conflict(f"This job has {found.state} already.", job_id=job_id, state=found.state)
    return found


def get(conn: Connection, job_id: str, client_id: str | None = None) -> Job:
    """One job, of any client when `client_id` is None. Raises NotFound, for another client's job too."""
    query = select(job).where(job.c.id == job_id)
    if client_id is not None:
        query = query.where(job.c.client_id == client_id)
    row = conn.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(job_id=job_id)
    return Job(**row)


def list_page(
    conn: Connection,
    client_id: str,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    state: State | None = None,
) -> Page[Job]:
    """A client's jobs, newest first, of one state if given. Raises InvalidInput as `pages.newest_first` does."""
    conditions = [job.c.client_id == client_id] + ([] if state is None else [job.c.state == state])
    page = newest_first(conn, job, *conditions, cursor=cursor, limit=limit)
    return Page([Job(**row) for row in page.data], page.next)


def _held(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    """The fence: true only while `attempt` is the one that runs."""
    return job.c.id == job_id, job.c.state == "running", job.c.attempts == attempt


def _end_attempt(conn: Connection, job_id: str, attempt: int, **values: Any) -> Job:
    row = _one(conn, _change(*_held(job_id, attempt)).values(lease_until=None, **values))
    if row is None:
        raise Conflict(
            "This attempt of the job is over: it was cancelled, or its lease ran out and another attempt took over.",
            job_id=job_id,
            attempt=attempt,
        )
    return Job(**row)


def _change(*conditions: ColumnElement[bool]) -> Update:
    return update(job).where(*conditions)


def _one(conn: Connection, change: Update) -> RowMapping | None:
    """The row `change` changed, after the change."""
    return conn.execute(change.returning(job)).mappings().one_or_none()
