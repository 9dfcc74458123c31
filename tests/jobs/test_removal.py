from __future__ import annotations

import pytest
from sqlalchemy import Connection, update

from callreel.errors import Conflict, NotFound
from callreel.jobs import store
from callreel.jobs.removal import remove, remove_finished
from callreel.storage.tables import job
from tests.storage.plans import plan


def add(conn: Connection, client_id: str, kind: str = "transcribe") -> str:
    return store.enqueue(conn, client_id=client_id, kind=kind, params={})[0].id


def test_only_a_finished_job_is_removed(conn: Connection, client_id: str, other_client_id: str) -> None:
    made = add(conn, client_id)
    with pytest.raises(Conflict, match="cancel"):
        remove(conn, made, client_id)
    cancelled = store.cancel(conn, made)
    with pytest.raises(NotFound):
        remove(conn, made, other_client_id)
    assert remove(conn, made, client_id) == cancelled
    with pytest.raises(NotFound):
        store.get(conn, made)


def test_old_jobs_are_removed_by_kind_and_age(conn: Connection, client_id: str) -> None:
    ended = [add(conn, client_id, kind) for kind in ("transcribe", "export", "transcribe", "export")]
    for day, made in enumerate(ended, 1):
        store.cancel(conn, made)
        conn.execute(update(job).where(job.c.id == made).values(finished_at=f"2026-01-0{day}"))
    waiting = add(conn, client_id)
    assert remove_finished(conn, "2026-01-03", kind="export") == [ended[1]]
    assert remove_finished(conn, "2026-02", limit=1) == [ended[0]]
    assert set(remove_finished(conn, "2026-02")) == {ended[2], ended[3]}
    assert store.unfinished(conn) == [waiting]


def test_old_jobs_are_found_by_index(conn: Connection) -> None:
    assert "ix_job_finished_at (finished_at<?)" in plan(conn, lambda: remove_finished(conn, "2026"))
