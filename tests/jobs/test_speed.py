from __future__ import annotations

import pytest
from sqlalchemy import Connection

from callreel.errors import NotFound
from callreel.jobs import speed, store
from callreel.jobs.speed import Place

NOW = 1_800_000_000.0  # seconds since the epoch


def add(conn: Connection, client_id: str, kind: str = "transcribe", priority: str = "normal") -> str:
    return store.enqueue(conn, client_id=client_id, kind=kind, params={}, priority=priority, now=NOW)[0].id


def run(conn: Connection, wall_s: float) -> None:
    taken = store.claim(conn, kinds=["transcribe"], lease_s=30, now=NOW)
    assert taken is not None
    store.succeed(conn, taken.id, taken.attempts, {}, {"wall_s": wall_s})


def test_the_speed_is_that_of_the_latest_jobs_of_the_kind(conn: Connection, client_id: str) -> None:
    assert speed.wall_s(conn, "transcribe") == speed.UNMEASURED_S
    for wall_s in [100.0] * 5 + [2.0, 4.0] * (speed.RECENT // 2):
        add(conn, client_id)
        run(conn, wall_s)
    assert 2.0 <= speed.wall_s(conn, "transcribe") < 100.0
    assert speed.wall_s(conn, "export") == speed.UNMEASURED_S


def test_waits_stay_within_bounds(conn: Connection) -> None:
    assert speed.wait_s(conn, "transcribe", 0, 3) == speed.LEAST_WAIT_S
    assert speed.wait_s(conn, "transcribe", 1000, 1) == speed.MOST_WAIT_S
    assert speed.wait_s(conn, "transcribe", 3, 2) == 1.5 * speed.UNMEASURED_S


def test_the_place_of_a_job_in_its_queue(conn: Connection, client_id: str) -> None:
    add(conn, client_id)
    run(conn, 10.0)
    add(conn, client_id, kind="export")
    first, second, low = (add(conn, client_id, priority=priority) for priority in ("normal", "normal", "low"))
    high = add(conn, client_id, priority="high")

    def places(slots: int) -> list[Place | None]:
        return [speed.place(conn, id, slots=slots, now=NOW) for id in (high, first, second, low)]

    assert places(2) == [Place(0, 0.0), Place(1, 0.0), Place(2, 5.0), Place(3, 10.0)]
    assert store.claim(conn, kinds=["transcribe"], lease_s=30, now=NOW) is not None
    assert places(1) == [None, Place(0, 10.0), Place(1, 20.0), Place(2, 30.0)]
    assert places(9) == [None, Place(0, 0.0), Place(1, 0.0), Place(2, 0.0)]
    with pytest.raises(NotFound):
        speed.place(conn, "none", slots=1, now=NOW)


def test_a_job_that_may_not_start_yet(conn: Connection, client_id: str) -> None:
    id = add(conn, client_id)
    later = add(conn, client_id)
    taken = store.claim(conn, kinds=["transcribe"], lease_s=30, now=NOW)
    assert taken is not None
    store.fail(conn, id, 1, {}, retry_at=NOW + 25)
    assert speed.place(conn, id, slots=1, now=NOW) == Place(0, 25.0)
    assert speed.place(conn, later, slots=1, now=NOW) == Place(0, 0.0)


def test_counts_by_kind_and_state(conn: Connection, client_id: str) -> None:
    for kind in ("transcribe", "transcribe", "export"):
        add(conn, client_id, kind=kind)
    run(conn, 1.0)
    assert speed.counts(conn) == {
        ("transcribe", "queued"): 1,
        ("transcribe", "succeeded"): 1,
        ("export", "queued"): 1,
    }
    assert speed.queued(conn, "transcribe") == 1
