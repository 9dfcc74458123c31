from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete
from sqlalchemy.dialects import postgresql

from callreel.calls.store import create_call
from callreel.errors import Conflict, InvalidInput, NotFound, QueueFull
from callreel.jobs import speed, store
from callreel.jobs.store import Job
from callreel.storage.tables import job, transcript
from callreel.transcripts.store import create_transcript, finish_transcript
from tests.storage.plans import plan

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
        return self.offer(**values)[0]

    def offer(self, **values: Any) -> tuple[Job, bool]:
        usual = {"client_id": self.client_id, "kind": "transcribe", "params": {}, "now": NOW}
        return store.enqueue(self.conn, **usual | values)

    def claim(self, now: float = NOW, kinds: Collection[str] = ("transcribe", "export")) -> Job | None:
        return store.claim(self.conn, kinds=kinds, lease_s=LEASE_S, now=now)

    def claimed(self, now: float = NOW, kinds: Collection[str] = ("transcribe", "export")) -> Job:
        taken = self.claim(now, kinds)
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


AGEING_S = 100.0
arrivals = st.lists(st.tuples(st.sampled_from(store.PRIORITIES), st.integers(0, 500)), min_size=1, max_size=12)


@given(arrivals)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_every_claim_takes_the_first_in_line(queue: Queue, ages: list[tuple[str, int]]) -> None:
    queue.conn.execute(delete(job))
    line = []
    for priority, at in ages:
        made = queue.add(priority=priority, now=NOW + at, ageing_s=AGEING_S)
        line.append((at + AGEING_S * store.AGEING[priority], made.id))
    assert [queue.claimed().id for _ in line] == [id for _, id in sorted(line)]
    assert queue.claim() is None


@given(behind=arrivals, every_s=st.integers(10, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
def test_a_low_job_never_starves(queue: Queue, behind: list[tuple[str, int]], every_s: int) -> None:
    """Whatever was there, and however many high ones come: it waits for nothing that is 3 ageing times younger."""
    queue.conn.execute(delete(job))
    for priority, _ in behind:
        queue.add(priority=priority, ageing_s=AGEING_S)
    low = queue.add(priority="low", ageing_s=AGEING_S)
    for claims in range(1, 1000):
        queue.add(priority="high", now=NOW + claims * every_s)  # one comes for every one that is claimed
        if queue.claimed().id == low.id:
            break
    assert claims <= len(behind) + 3 * AGEING_S / every_s + 1


def test_a_kind_without_room_holds_no_other_back(queue: Queue) -> None:
    made = [queue.add(kind=kind) for kind in ("transcribe", "export", "record")]
    assert queue.claimed(kinds=["export", "record"]).id == made[1].id
    assert queue.claimed().id == made[0].id
    assert queue.claim(kinds=["export"]) is None
    assert queue.claim(kinds=[]) is None


def test_a_claim_reads_the_index_not_the_queue(queue: Queue) -> None:
    found = plan(queue.conn, queue.claim)
    assert found.count("USING INDEX ix_job_state_kind_rank_at_id (state=? AND kind=?)") == 2
    assert "SCAN job" not in found and "SCAN waiting" not in found


def test_hot_queries_use_indexes(queue: Queue) -> None:
    conn, client_id = queue.conn, queue.client_id
    made = queue.add()
    by_key, by_cache_key = "ix_job_client_id_idempotency_key", "ix_job_client_id_cache_key"
    for run, index in (
        (lambda: store.find(conn, client_id, "k"), f"{by_key} (client_id=? AND idempotency_key=?)"),
        (lambda: store.cached(conn, client_id, "k", since=""), f"{by_cache_key} (client_id=? AND cache_key=?)"),
        (lambda: store.list_page(conn, client_id), "ix_job_client_id_created_at_id (client_id=?)"),
        (lambda: store.list_page(conn, client_id, call_id="c"), "ix_job_call_id_created_at_id (call_id=?)"),
        (lambda: store.unfinished(conn), "(state=?)"),
        (lambda: speed.wall_s(conn, "transcribe"), "ix_job_state_kind_finished_at (state=? AND kind=?)"),
        (lambda: speed.queued(conn, "transcribe"), "(state=? AND kind=?)"),
        (lambda: speed.counts(conn), "USING COVERING INDEX"),
    ):
        found = plan(conn, run)
        assert index in found, found
    assert queue.get(made) == made


def test_one_idempotency_key_makes_one_job(queue: Queue, other_client_id: str) -> None:
    made, new = queue.offer(idempotency_key="k", params={"n": 1})
    again, new_again = queue.offer(idempotency_key="k", params={"n": 2}, queue_limit=1)
    assert (new, new_again, again) == (True, False, made)
    assert store.find(queue.conn, queue.client_id, "k") == made
    assert store.find(queue.conn, other_client_id, "k") is None
    assert queue.offer(idempotency_key="k", client_id=other_client_id)[1]
    assert queue.offer()[1] and queue.offer()[1]  # without a key each is another job


def test_a_full_queue_says_how_long_to_wait(queue: Queue) -> None:
    for _ in range(3):
        queue.add(queue_limit=3)
    queue.add(kind="export", queue_limit=3)
    with pytest.raises(QueueFull) as refusal:
        queue.offer(queue_limit=3)
    unmeasured = {"retry_after_s": speed.UNMEASURED_S, "queued": 3, "queue_limit": 3}
    assert refusal.value.detail == unmeasured
    store.succeed(queue.conn, queue.claimed().id, 1, {}, USAGE | {"wall_s": 6.0})
    store.succeed(queue.conn, queue.claimed().id, 1, {}, USAGE | {"wall_s": 10.0})
    for _ in range(2):
        queue.add()
    with pytest.raises(QueueFull) as refusal:
        queue.offer(queue_limit=2, slots=4)
    assert refusal.value.detail["retry_after_s"] == 4.0  # 2 places are needed, 8 s a job, 4 at once


def test_a_result_is_found_again_while_its_transcript_is_there(queue: Queue, other_client_id: str) -> None:
    conn, client_id = queue.conn, queue.client_id
    call = create_call(conn, client_id=client_id, mode="postcall_only", state="done")

    def run() -> Job:
        queue.add(cache_key="c")
        taken = queue.claimed()
        made = create_transcript(conn, call_id=call.id, pass_="final", engine="whisper", model="small")
        finish_transcript(conn, made.id, state="done", language=None, warnings=())
        return store.succeed(conn, taken.id, taken.attempts, {"transcript_id": made.id}, USAGE)

    first, second = run(), run()
    assert first.finished_at is not None and second.finished_at is not None
    assert store.cached(conn, client_id, "c", since=second.finished_at) == second
    assert store.cached(conn, client_id, "c", since="9999") is None
    assert store.cached(conn, client_id, "other", since="") is None
    assert store.cached(conn, other_client_id, "c", since="") is None
    assert second.result is not None
    conn.execute(delete(transcript).where(transcript.c.id == second.result["transcript_id"]))
    assert store.cached(conn, client_id, "c", since="") == first
    conn.execute(delete(transcript))
    assert store.cached(conn, client_id, "c", since="") is None


def test_the_unfinished_jobs_of_a_call(queue: Queue) -> None:
    done, running, queued, elsewhere = (queue.add(call_id=call) for call in ("a", "a", "a", "b"))
    queue.claimed()
    store.cancel(queue.conn, done.id)
    queue.claimed()
    assert set(store.unfinished(queue.conn, "a")) == {running.id, queued.id}
    assert set(store.unfinished(queue.conn)) == {running.id, queued.id, elsewhere.id}


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


def test_jobs_are_listed_by_kind_and_call(queue: Queue) -> None:
    made = [
        queue.add(kind=kind, call_id=call) for kind, call in (("export", "a"), ("transcribe", "a"), ("export", "b"))
    ]
    assert [j.id for j in store.list_page(queue.conn, queue.client_id, kind="export").data] == [made[2].id, made[0].id]
    assert [j.id for j in store.list_page(queue.conn, queue.client_id, call_id="a").data] == [made[1].id, made[0].id]
    assert [j.id for j in store.list_page(queue.conn, queue.client_id, kind="export", call_id="a").data] == [made[0].id]


def test_on_postgresql_two_workers_never_wait_for_one_row(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = []
    monkeypatch.setattr(store, "_one", lambda conn, change: changes.append(change))
    queue.claim()
    assert str(changes[0].compile(dialect=postgresql.dialect())).count("FOR UPDATE SKIP LOCKED") == 2


def test_how_many_wait_of_each_kind(queue: Queue) -> None:
    assert store.queue_lengths(queue.conn) == {}
    for kind in ("transcribe", "transcribe", "export"):
        queue.add(kind=kind)
    queue.claim()
    assert store.queue_lengths(queue.conn) == {"transcribe": 1, "export": 1}


def test_an_attempt_of_a_deleted_job_is_over(queue: Queue) -> None:
    queue.add()
    claimed = queue.claimed()
    queue.conn.execute(delete(job).where(job.c.id == claimed.id))
    for retry_at in (None, NOW + 1):
        with pytest.raises(Conflict):
            store.fail(queue.conn, claimed.id, claimed.attempts, ERROR, retry_at=retry_at)
