from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select, update

from callreel.calls import deletion, store
from callreel.errors import Conflict, NotFound
from callreel.jobs import store as jobs
from callreel.storage import tables
from callreel.storage.tables import metadata
from callreel.transcripts import edits
from callreel.transcripts import store as transcripts
from tests.storage.plans import plan
from tests.transcripts.segments import spoken


def full_call(conn: Connection, client_id: str) -> tuple[str, str]:
    """A call that is over, with something of everything a call can have; its id and that of its job."""
    call = store.create_call(conn, client_id=client_id, mode="live", state="live")
    store.add_track(conn, call.id, "caller")
    stream = store.open_stream(conn, call_id=call.id, track="caller", protocol="whisperlive", options={})
    store.close_stream(conn, stream.id, 0)
    job, _ = jobs.enqueue(conn, client_id=client_id, kind="transcribe", params={}, call_id=call.id)
    made = transcripts.create_transcript(conn, call_id=call.id, pass_="final", engine="w", model="m", job_id=job.id)
    transcripts.put_segments(conn, made.id, [spoken(), spoken(seq=1)])
    edits.change(conn, f"{made.id}:caller:0", client_id, text="other")
    jobs.cancel(conn, job.id)
    store.finish_call(conn, call.id, state="done", duration_s=1.0, language="en")
    return call.id, job.id


def rows(conn: Connection) -> dict[str, int]:
    found = {name: conn.execute(select(func.count()).select_from(table)).scalar_one() for name, table in TABLES.items()}
    return {name: n for name, n in found.items() if n}


TABLES = {name: table for name, table in metadata.tables.items() if name not in ("client", "webhook", "delivery")}


def test_a_call_goes_with_everything_under_it_and_with_nothing_else(conn: Connection, client_id: str) -> None:
    kept, _ = full_call(conn, client_id)
    before = rows(conn)
    assert set(before) == set(TABLES)  # something of everything
    gone, job_id = full_call(conn, client_id)
    assert deletion.delete_call(conn, gone, client_id) == [job_id]
    assert rows(conn) == before
    assert store.get_call(conn, kept, client_id).state == "done"
    for client in (client_id, None):
        with pytest.raises(NotFound):
            deletion.delete_call(conn, gone, client)


def test_only_its_client_deletes_a_call(conn: Connection, client_id: str, other_client_id: str) -> None:
    call_id, _ = full_call(conn, client_id)
    with pytest.raises(NotFound):
        deletion.delete_call(conn, call_id, other_client_id)
    deletion.delete_call(conn, call_id)


def test_what_is_under_way_is_ended_first(conn: Connection, client_id: str) -> None:
    call_id, _ = full_call(conn, client_id)
    job, _ = jobs.enqueue(conn, client_id=client_id, kind="transcribe", params={}, call_id=call_id)
    with pytest.raises(Conflict, match="jobs") as refusal:
        deletion.delete_call(conn, call_id, client_id)
    assert refusal.value.detail["jobs"] == [job.id]
    jobs.cancel(conn, job.id)
    stream = store.open_stream(conn, call_id=call_id, track="caller", protocol="whisperlive", options={})
    with pytest.raises(Conflict, match="live"):
        deletion.delete_call(conn, call_id, client_id)
    store.close_stream(conn, stream.id, 0)
    deletion.delete_call(conn, call_id, client_id)


def test_old_calls_that_are_over(conn: Connection, client_id: str) -> None:
    made = [
        store.create_call(conn, client_id=client_id, mode="live", state=state).id
        for state in ("done", "live", "failed", "processing", "done")
    ]
    for day, call_id in enumerate(made, 1):
        conn.execute(update(tables.call).where(tables.call.c.id == call_id).values(created_at=f"2026-01-0{day}"))
    assert deletion.old_calls(conn, "2026-01-05") == [made[0], made[2]]
    assert deletion.old_calls(conn, "2026-01-05", limit=1) == [made[0]]
    assert "ix_call_created_at (created_at<?)" in plan(conn, lambda: deletion.old_calls(conn, "2026"))
    assert deletion.existing(conn, [made[0], "none"]) == {made[0]}
    assert deletion.existing(conn, []) == set()
