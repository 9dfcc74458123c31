"""Deleting a call with everything under it: first its rows, here, then its files (`storage.removal`).

Whatever ends the process in between leaves files without a row, which the next sweep removes; never a row without its
files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

from sqlalchemy import Connection, delete, exists, select

from callreel.errors import Conflict, NotFound
from callreel.jobs import store as jobs
from callreel.storage.tables import call, job, stream

Finder: TypeAlias = Callable[[Connection], Iterable[str]]  # ids of calls


def delete_call(conn: Connection, call_id: str, client_id: str | None = None) -> list[str]:
    """Delete a call with its tracks, streams, transcripts, edits and jobs; returns the ids of these jobs.

    Raises NotFound, for another client's call too if `client_id` is given, and Conflict while a stream of the call is
    open or a job of it has not ended: who deletes ends these first.
    """
    wanted = call.c.id == call_id if client_id is None else (call.c.id == call_id) & (call.c.client_id == client_id)
    if not conn.execute(select(exists().where(wanted))).scalar_one():
        raise NotFound(call_id=call_id)
    if conn.execute(select(exists().where(stream.c.call_id == call_id, stream.c.state == "open"))).scalar_one():
        raise Conflict("This call is live; end its streams first, then delete it.", call_id=call_id)
    if unfinished := jobs.unfinished(conn, call_id):
        raise Conflict("This call has jobs that have not ended; cancel them first.", call_id=call_id, jobs=unfinished)
    ended = conn.execute(delete(job).where(job.c.call_id == call_id).returning(job.c.id)).scalars().all()
    conn.execute(delete(call).where(call.c.id == call_id))
    return list(ended)


def old_calls(conn: Connection, before: str, limit: int = 100) -> list[str]:
    """The ids of up to `limit` calls that are over and were made before then (RFC 3339), oldest first."""
    over = select(call.c.id).where(call.c.created_at < before, call.c.state.in_(("done", "failed")))
    return list(conn.execute(over.order_by(call.c.created_at, call.c.id).limit(limit)).scalars())


def existing(conn: Connection, ids: Collection[str]) -> set[str]:
    """Those of these calls that there are."""
    return set(conn.execute(select(call.c.id).where(call.c.id.in_(ids))).scalars())
