"""Removing jobs that are over. What they made stays: transcripts belong to calls."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from callreel.errors import Conflict
from callreel.jobs.store import FINISHED, Job, get
from callreel.storage.tables import job


def remove(conn: Connection, job_id: str, client_id: str | None = None) -> Job:
    """Delete a finished job, and nothing of what it made. Raises NotFound, and Conflict for one that has not ended."""
    found = get(conn, job_id, client_id)
    gone = conn.execute(delete(job).where(job.c.id == job_id, job.c.state.in_(FINISHED)))
    if gone.rowcount == 0:
        raise Conflict("This job has not ended; cancel it first.", job_id=job_id, state=found.state)
    return found


def remove_finished(conn: Connection, before: str, kind: str | None = None, limit: int = 1000) -> list[str]:
    """Delete up to `limit` jobs that ended before then (RFC 3339), of one kind if given; returns their ids."""
    old = select(job.c.id).where(job.c.finished_at < before)
    if kind is not None:
        old = old.where(job.c.kind == kind)
    oldest = old.order_by(job.c.finished_at).limit(limit)
    return list(conn.execute(delete(job).where(job.c.id.in_(oldest)).returning(job.c.id)).scalars())
