from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, text, update
from sqlalchemy.dialects import postgresql

from callreel.errors import Conflict, InvalidInput, NotFound
from callreel.jobs import store
from callreel.jobs.store import Job
from callreel.storage.tables import job

NOW = 1_800_000_000.0  # seconds since the epoch
LEASE_S = 30.0
ERROR = {"code": "unreadable_media", "message": "No audio.", "hint": ""}
USAGE = {"wall_s": 2.0, "cpu_s": 1.5, "peak_rss_bytes": 1_000, "audio_s": 60.0, "rtfx": 30.0}


@pytest.fixture
def queue(conn: Connection, client_id: str) -> Queue:
    return Queue(conn, client_id)


class Queue:
    """The store on one connection, at a time that a test sets."""

    def __init__(self, conn: Connection, client_id: str) -> None:
        self.conn = conn
        self.client_id = client_id

    def add(self, **values: Any) -> Job:
        return store.enqueue(self.conn, **{"client_id": self.client_id, "kind": "transcribe", "params": {}, **values})

    def claim(self, now: float = NOW) -> Job | None:
        return store.claim(self.conn, lease_s=LEASE_S, now=now)

    def claimed(self, now: float = NOW) -> Job:
        taken = self.claim(now)
        assert taken is not None
        return taken

    def get(self, job: Job) -> Job:
        return store.get(self.conn, job.id)


def test_a_new_job_is_queued(queue: Queue) -> None:
    made = queue.add(params={"source": "a.wav"}, call_id="call", job_id="chosen", priority="low")
    assert (made.id, made.state, made.priority, made.attempts, made.max_attempts) == ("chosen", "queued", "low", 0, 3)
    assert (made.params, made.progress, made.call_id, made.result) == ({"source": "a.wav"}, {}, "call", None)
    assert queue.get(made) == made


def test_an_unknown_priority_is_refused(queue: Queue) -> None:
    with pytest.raises(InvalidInput, match="priority"):
        queue.add(priority="urgent")


def test_a_claim_leases_the_job_and_counts_the_attempt(queue: Queue) -> None:
    made = queue.add()
    taken = queue.claimed()
    assert (taken.id, taken.state, taken.attempts, taken.lease_until) == (made.id, "running", 1, NOW + LEASE_S)
    assert taken.started_at is not None
    assert queue.claim() is None


def test_claims_go_by_priority_then_age(queue: Queue) -> None:
    names = ("low", "normal", "high", "normal", "high", "low")
    made = [queue.add(priority=name) for name in names]
    expected = [made[i].id for i in (2, 4, 1, 3, 0, 5)]
    assert [queue.claimed().id for _ in made] == expected


@given(st.lists(st.tuples(st.sampled_from(store.PRIORITIES), st.sampled_from("1234")), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_every_claim_takes_the_first_in_line(queue: Queue, ages: list[tuple[str, str]]) -> None:
    queue.conn.execute(delete(job))
    line = []
    for priority, created_at in ages:
        made = queue.add(priority=priority)
        queue.conn.execute(update(job).where(job.c.id == made.id).values(created_at=created_at))
        line.append((store.PRIORITIES.index(priority), created_at, made.id))
    assert [queue.claimed().id for _ in line] == [id for *_, id in sorted(line)]
    assert queue.claim() is None


def test_a_claim_reads_the_index_not_the_queue(queue: Queue) -> None:
    statements: list[tuple[str, Any]] = []
    raw = queue.conn.connection.driver_connection
    assert raw is not None
    raw.set_trace_callback(lambda sql: statements.append(sql))
    queue.claim()
    raw.set_trace_callback(None)
    (claim,) = [sql for sql in statements if sql.startswith("UPDATE")]
    plan = "\n".join(queue.conn.execute(text(f"EXPLAIN QUERY PLAN {claim}")).scalars("detail"))
    assert plan.count("USING INDEX ix_job_state_priority_created_at (state=? AND priority=?)") == 3
    assert "SCAN" not in plan


def test_a_job_is_not_claimed_before_its_time(queue: Queue) -> None:
    queue.add()
    taken = queue.claimed()
    again = store.fail(queue.conn, taken.id, 1, ERROR, retry_at=NOW + 10)
    assert (again.state, again.error, again.lease_until) == ("queued", ERROR, None)
    assert queue.claim(NOW + 9) is None
    assert queue.claimed(NOW + 10).attempts == 2


def test_success_keeps_the_result_and_clears_an_earlier_error(queue: Queue) -> None:
    queue.add()
    store.fail(queue.conn, queue.claimed().id, 1, ERROR, retry_at=NOW)
    taken = queue.claimed()
    done = store.succeed(queue.conn, taken.id, 2, {"transcript_id": "t"}, USAGE)
    assert (done.state, done.result, done.usage, done.error) == ("succeeded", {"transcript_id": "t"}, USAGE, None)
    assert done.lease_until is None
    assert done.finished_at is not None


def test_a_failure_that_is_not_to_be_retried_is_final(queue: Queue) -> None:
    queue.add()
    failed = store.fail(queue.conn, queue.claimed().id, 1, ERROR, retry_at=None)
    assert (failed.state, failed.error) == ("failed", ERROR)
    assert failed.finished_at is not None


def test_attempts_run_out(queue: Queue) -> None:
    made = queue.add()
    for attempt in range(1, made.max_attempts + 1):
        assert queue.claimed().attempts == attempt
        ended = store.fail(queue.conn, made.id, attempt, ERROR, retry_at=NOW)
    assert ended.state == "failed"
    assert queue.claim() is None


def test_a_lost_lease_fences_its_worker(queue: Queue) -> None:
    made = queue.add()
    queue.claimed()
    assert store.requeue_abandoned(queue.conn, NOW + LEASE_S) == [made.id]
    successor = queue.claimed()
    assert successor.attempts == 2

    assert not store.heartbeat(queue.conn, made.id, 1, LEASE_S, NOW)
    assert not store.progress(queue.conn, made.id, 1, {"percent": 99})
    for settle in (
        lambda: store.succeed(queue.conn, made.id, 1, {}, USAGE),
        lambda: store.fail(queue.conn, made.id, 1, ERROR, retry_at=NOW),
        lambda: store.fail(queue.conn, made.id, 1, ERROR, retry_at=None),
    ):
        with pytest.raises(Conflict, match="attempt"):
            settle()
    assert queue.get(made) == successor
    assert store.succeed(queue.conn, made.id, 2, {}, USAGE).state == "succeeded"
    with pytest.raises(Conflict):
        store.succeed(queue.conn, made.id, 2, {}, USAGE)


def test_a_heartbeat_keeps_the_lease(queue: Queue) -> None:
    made = queue.add()
    queue.claimed()
    assert store.heartbeat(queue.conn, made.id, 1, LEASE_S, NOW + 20)
    assert store.progress(queue.conn, made.id, 1, {"percent": 40, "step": "decode", "eta_s": 3.0})
    assert store.requeue_abandoned(queue.conn, NOW + LEASE_S) == []
    assert queue.get(made).progress == {"percent": 40, "step": "decode", "eta_s": 3.0}
    assert store.requeue_abandoned(queue.conn, NOW + 20 + LEASE_S) == [made.id]


def test_a_server_that_starts_takes_back_every_running_job(queue: Queue) -> None:
    running, waiting, done = queue.add(priority="high"), queue.add(priority="low"), queue.add(priority="high")
    queue.claimed()
    store.succeed(queue.conn, queue.claimed().id, 1, {}, USAGE)
    assert store.requeue_abandoned(queue.conn, NOW, all_running=True) == [running.id]
    assert [queue.get(made).state for made in (running, waiting, done)] == ["queued", "queued", "succeeded"]


def test_a_job_whose_worker_stops_is_queued_again_and_the_attempt_does_not_count(queue: Queue) -> None:
    made = queue.add()
    for attempt in range(1, made.max_attempts + 2):
        assert queue.claimed().attempts == attempt
        assert store.release(queue.conn, made.id, attempt)
    assert queue.get(made).state == "queued" and queue.get(made).error is None
    assert not store.release(queue.conn, made.id, made.max_attempts + 1)


def test_a_job_that_is_lost_every_time_fails_with_the_reason(queue: Queue) -> None:
    made = queue.add()
    for _ in range(made.max_attempts):
        queue.claimed()
        assert store.requeue_abandoned(queue.conn, NOW, all_running=True) == [made.id]
    failed = queue.get(made)
    assert (failed.state, failed.attempts, failed.lease_until) == ("failed", 3, None)
    assert failed.error is not None
    assert failed.error["code"] == "attempts_exhausted"
    assert failed.finished_at is not None


def test_cancel_stops_a_queued_and_a_running_job(queue: Queue) -> None:
    running, queued = queue.add(), queue.add()
    queue.claimed()
    assert store.cancel(queue.conn, queued.id).state == "cancelled"
    cancelled = store.cancel(queue.conn, running.id)
    assert (cancelled.state, cancelled.lease_until) == ("cancelled", None)
    assert store.cancel(queue.conn, running.id) == cancelled
    assert not store.heartbeat(queue.conn, running.id, 1, LEASE_S, NOW)
    assert queue.claim() is None
    with pytest.raises(Conflict):
        store.succeed(queue.conn, running.id, 1, {}, USAGE)


def test_a_finished_job_is_not_cancelled(queue: Queue) -> None:
    made = queue.add()
    queue.claimed()
    store.succeed(queue.conn, made.id, 1, {}, USAGE)
    with pytest.raises(Conflict, match="succeeded"):
        store.cancel(queue.conn, made.id)


def test_a_job_is_seen_by_its_client_only(queue: Queue, other_client_id: str) -> None:
    made = queue.add()
    assert store.get(queue.conn, made.id, queue.client_id) == made
    with pytest.raises(NotFound):
        store.get(queue.conn, made.id, other_client_id)
    with pytest.raises(NotFound):
        store.cancel(queue.conn, "nobody's")
    assert store.list_page(queue.conn, other_client_id).data == []


def test_jobs_are_listed_newest_first_in_pages(queue: Queue) -> None:
    made = [queue.add() for _ in range(5)]
    first = store.list_page(queue.conn, queue.client_id, limit=3)
    rest = store.list_page(queue.conn, queue.client_id, cursor=first.next, limit=3)
    assert first.data + rest.data == made[::-1]
    assert rest.next is None


def test_jobs_are_listed_by_state(queue: Queue) -> None:
    first, second = queue.add(), queue.add()
    queue.claimed()
    assert [j.id for j in store.list_page(queue.conn, queue.client_id, state="queued").data] == [second.id]
    assert [j.id for j in store.list_page(queue.conn, queue.client_id, state="running").data] == [first.id]


def test_on_postgresql_two_workers_never_wait_for_one_row(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = []
    monkeypatch.setattr(store, "_one", lambda conn, change: changes.append(change))
    queue.claim()
    assert str(changes[0].compile(dialect=postgresql.dialect())).count("FOR UPDATE SKIP LOCKED") == 3
