"""The job queue, in SQL. Every function is one step inside the caller's transaction.

queued -> running (claim) -> succeeded | failed, or queued again after a failure or a lost lease; cancelled from either.

Jobs are claimed in the order of `rank_at`: when they were made, a while later for a lower priority. So a low job waits
for the others of its age and a little younger, and never for all that still come.

`attempts` counts the claims and is the fence: a worker that lost its lease holds an older number and changes nothing.
`now`, `lease_until`, `not_before` and `retry_at` are seconds since the epoch (`time.time()`).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Subquery,
    Update,
    exists,
    func,
    select,
    union_all,
    update,
)

from callreel import clock
from callreel.errors import Conflict, InvalidInput, NotFound, QueueFull
from callreel.jobs import speed, webhooks
from callreel.jobs.nouns import job_noun
from callreel.storage.inserts import insert
from callreel.storage.pages import DEFAULT_LIMIT, Page, newest_first
from callreel.storage.tables import job, transcript

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINISHED: tuple[State, ...] = ("succeeded", "failed", "cancelled")
AGEING = {"high": 0, "normal": 1, "low": 3}  # how many times `ageing_s` younger a job of each priority counts
PRIORITIES = tuple(AGEING)
AGEING_S = 600.0
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work; `usage` is {wall_s, cpu_s, peak_rss_bytes, audio_s, rtfx}, `error` {code, message, hint}."""

    id: str
    client_id: str
    kind: str
    state: State
    priority: str
    rank_at: float
    attempts: int
    max_attempts: int
    lease_until: float | None
    not_before: float
    params: dict[str, Any]
    progress: dict[str, Any]
    call_id: str | None
    idempotency_key: str | None
    cache_key: str | None
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
    idempotency_key: str | None = None,
    cache_key: str | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    queue_limit: int | None = None,
    slots: int = 1,
    ageing_s: float = AGEING_S,
    now: float | None = None,
) -> tuple[Job, bool]:
    """Add a queued job, and say that it is new: of a client's jobs with one `idempotency_key` only the first is made,
    and every later call answers that one.

    `job_id` is for a caller that named the job beforehand. `slots` jobs of this kind run at once. Raises InvalidInput
    for the priority, and QueueFull, with `retry_after_s` in its detail, when `queue_limit` jobs of this kind wait.
    """
    if priority not in PRIORITIES:
        raise InvalidInput(f"priority must be one of {', '.join(PRIORITIES)}.", field="priority")
    if idempotency_key is not None and (made := find(conn, client_id, idempotency_key)) is not None:
        return made, False
    if queue_limit is not None:
        require_room(conn, kind, queue_limit=queue_limit, slots=slots)
    row = {
        "id": job_id or clock.new_id(),
        "client_id": client_id,
        "kind": kind,
        "priority": priority,
        "rank_at": (time.time() if now is None else now) + AGEING[priority] * ageing_s,
        "params": params,
        "call_id": call_id,
        "idempotency_key": idempotency_key,
        "cache_key": cache_key,
        "max_attempts": max_attempts,
    }
    new = insert(conn, job).values(row).on_conflict_do_nothing(index_elements=["client_id", "idempotency_key"])
    added = conn.execute(new.returning(job)).mappings().one_or_none()
    if added is not None:
        return Job(**added), True
    assert idempotency_key is not None
    earlier = find(conn, client_id, idempotency_key)  # another server's transaction was faster
    assert earlier is not None
    return earlier, False


def require_room(conn: Connection, kind: str, *, queue_limit: int, slots: int) -> None:
    """Raises QueueFull, with `retry_after_s` in its detail, when `queue_limit` jobs of this kind wait."""
    if (queued := speed.queued(conn, kind)) >= queue_limit:
        retry_after_s = speed.wait_s(conn, kind, queued - queue_limit + 1, slots)
        raise QueueFull(retry_after_s=retry_after_s, queued=queued, queue_limit=queue_limit)


def find(conn: Connection, client_id: str, idempotency_key: str) -> Job | None:
    """The job that this client made under the key, for a caller that looks before it keeps an upload."""
    query = select(job).where(job.c.client_id == client_id, job.c.idempotency_key == idempotency_key)
    row = conn.execute(query).mappings().one_or_none()
    return None if row is None else Job(**row)


def claim(conn: Connection, *, kinds: Collection[str], lease_s: float, now: float) -> Job | None:
    """Take the first in line of the jobs of `kinds` that may start by now, for `lease_s`; None when there is none."""
    waiting = job.alias("waiting")

    def first(kind: str) -> Subquery:
        return (
            select(waiting.c.id, waiting.c.rank_at)
            .where(waiting.c.state == "queued", waiting.c.kind == kind, waiting.c.not_before <= now)
            .order_by(waiting.c.rank_at, waiting.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)  # PostgreSQL: two workers never wait for one row
            .subquery()
        )

    if not kinds:
        return None
    # One look into the index a kind: of a kind without room, however long its queue, no row is read.
    firsts = union_all(*(select(first(kind)) for kind in kinds)).subquery()
    front = select(firsts.c.id).order_by(firsts.c.rank_at, firsts.c.id).limit(1).scalar_subquery()
    taken = _one(
        conn,
        _change(job.c.id == front).values(
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


def require_held(conn: Connection, job_id: str, attempt: int) -> None:
    """Raise Conflict when this attempt is over, before anything is written that only it may write."""
    if conn.execute(select(job.c.id).where(*_held(job_id, attempt))).one_or_none() is None:
        raise _over(job_id, attempt)


def progress(conn: Connection, job_id: str, attempt: int, progress: dict[str, Any]) -> bool:
    """Set {percent, step, eta_s}; False when this attempt is over and its worker should stop."""
    return _one(conn, _change(*_held(job_id, attempt)).values(progress=progress)) is not None


def succeed(
    conn: Connection,
    job_id: str,
    attempt: int,
    result: dict[str, Any],
    usage: dict[str, Any] | None,
    *,
    cache_key: str | None = None,
) -> Job:
    """End the attempt with its result; `usage` None where it took no work, `cache_key` where it has one by now.

    Raises Conflict when the attempt is over already.
    """
    ended = {"result": result, "usage": usage, "error": None, "finished_at": clock.now()}
    key = {} if cache_key is None else {"cache_key": cache_key}
    return _end_attempt(conn, job_id, attempt, state="succeeded", **ended, **key)


def fail(conn: Connection, job_id: str, attempt: int, error: dict[str, Any], *, retry_at: float | None) -> Job:
    """End the attempt with its error: queued again from `retry_at` on while attempts are left, failed otherwise.

    Raises Conflict when the attempt is over already.
    """
    most = conn.execute(select(job.c.max_attempts).where(job.c.id == job_id)).scalar_one_or_none()  # None: deleted
    if retry_at is not None and most is not None and attempt < most:
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
    ended = [_told(conn, row).id for row in conn.execute(failed.returning(job)).mappings().all()]
    return ended + list(conn.execute(requeued.returning(job.c.id)).scalars())


def cancel(conn: Connection, job_id: str) -> Job:
    """Cancel a job that has not finished; its worker learns of it at its next heartbeat. Twice is harmless.

    Raises NotFound, and Conflict for one that succeeded or failed.
    """
    unfinished = (job.c.id == job_id, job.c.state.in_(("queued", "running")))
    values = {"state": "cancelled", "lease_until": None, "finished_at": clock.now()}
    if (row := _one(conn, _change(*unfinished).values(values))) is not None:
        return _told(conn, row)
    found = get(conn, job_id)
    if found.state != "cancelled":
        raise Conflict(f"This job has {found.state} already.", job_id=job_id, state=found.state)
    return found


def cached(conn: Connection, client_id: str, cache_key: str, *, since: str) -> Job | None:
    """The newest job of this client with this key that succeeded since then (RFC 3339), its transcript still there."""
    transcript_id = job.c.result["transcript_id"].as_string()
    query = select(job).where(
        job.c.client_id == client_id,
        job.c.cache_key == cache_key,
        job.c.state == "succeeded",
        job.c.finished_at >= since,
        exists().where(transcript.c.id == transcript_id, transcript.c.state == "done"),
    )
    newest = query.order_by(job.c.finished_at.desc(), job.c.id.desc()).limit(1)
    row = conn.execute(newest).mappings().one_or_none()
    return None if row is None else Job(**row)


def detach(conn: Connection, job_id: str) -> None:
    """Make a job that has ended forget what it was told and which call it was for, when the call goes and it stays."""
    conn.execute(update(job).where(job.c.id == job_id).values(params={}, call_id=None))


def unfinished_with(conn: Connection, kind: str, name: str, value: bool) -> list[Job]:
    """The jobs of a kind that are queued or running and whose params have this value under this name."""
    asked = job.c.params[name].as_boolean() == value
    query = select(job).where(job.c.kind == kind, job.c.state.in_(("queued", "running")), asked)
    return [Job(**row) for row in conn.execute(query).mappings()]


def unfinished(conn: Connection, call_id: str | None = None) -> list[str]:
    """The ids of all jobs that are queued or running, of one call if given."""
    query = select(job.c.id).where(job.c.state.in_(("queued", "running")))
    return list(conn.execute(query if call_id is None else query.where(job.c.call_id == call_id)).scalars())


def existing(conn: Connection, ids: Collection[str]) -> set[str]:
    """Those of these jobs that there are."""
    return set(conn.execute(select(job.c.id).where(job.c.id.in_(ids))).scalars())


def calls_at_work(conn: Connection) -> set[str]:
    """The ids of calls that a queued or running job belongs to."""
    query = select(job.c.call_id).where(job.c.state.in_(("queued", "running")), job.c.call_id.is_not(None))
    return set(conn.execute(query).scalars())


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
    kind: str | None = None,
    call_id: str | None = None,
) -> Page[Job]:
    """A client's jobs, newest first, of one state, kind and call if given. Raises as `pages.newest_first` does."""
    wanted = {job.c.client_id: client_id, job.c.state: state, job.c.kind: kind, job.c.call_id: call_id}
    conditions = [column == value for column, value in wanted.items() if value is not None]
    page = newest_first(conn, job, *conditions, cursor=cursor, limit=limit)
    return Page([Job(**row) for row in page.data], page.next)


def queue_lengths(conn: Connection) -> dict[str, int]:
    """How many jobs wait, by kind; a kind without any is left out."""
    waiting = select(job.c.kind, func.count()).where(job.c.state == "queued").group_by(job.c.kind)
    return {row[0]: row[1] for row in conn.execute(waiting)}


def _held(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    """The fence: true only while `attempt` is the one that runs."""
    return job.c.id == job_id, job.c.state == "running", job.c.attempts == attempt


def _end_attempt(conn: Connection, job_id: str, attempt: int, **values: Any) -> Job:
    row = _one(conn, _change(*_held(job_id, attempt)).values(lease_until=None, **values))
    if row is None:
        raise _over(job_id, attempt)
    return _told(conn, row)


def _told(conn: Connection, row: RowMapping) -> Job:
    """The job of a row as it was just changed; if that is its end, its client's webhooks will be told."""
    if row["state"] in FINISHED:
        webhooks.tell(conn, row["client_id"], "job", job_noun(dict(row)))
    return Job(**row)


def _over(job_id: str, attempt: int) -> Conflict:
    return Conflict(
        "This attempt of the job is over: it was cancelled, or its lease ran out and another attempt took over.",
        job_id=job_id,
        attempt=attempt,
    )


def _change(*conditions: ColumnElement[bool]) -> Update:
    return update(job).where(*conditions)


def _one(conn: Connection, change: Update) -> RowMapping | None:
    """The row `change` changed, after the change."""
    return conn.execute(change.returning(job)).mappings().one_or_none()
