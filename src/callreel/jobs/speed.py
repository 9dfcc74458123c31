"""How fast the queue moves: measured on the jobs that ended last, and what it means for those that wait."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, or_, select

from callreel.errors import NotFound
from callreel.storage.tables import job

RECENT = 20  # jobs that the speed is measured on
UNMEASURED_S = 60.0  # a job, while none of its kind has ended
LEAST_WAIT_S, MOST_WAIT_S = 1.0, 3600.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queued job stands: `ahead` jobs of its kind are claimed before it, it starts in about `eta_s` seconds."""

    ahead: int
    eta_s: float


def wall_s(conn: Connection, kind: str) -> float:
    """The mean wall time of the latest jobs of this kind, seconds."""
    latest = (
        select(job.c.usage)
        .where(job.c.state == "succeeded", job.c.kind == kind, job.c.usage.is_not(None))
        .order_by(job.c.finished_at.desc())
        .limit(RECENT)
    )
    measured = [usage["wall_s"] for usage in conn.execute(latest).scalars()]
    return sum(measured) / len(measured) if measured else UNMEASURED_S


def wait_s(conn: Connection, kind: str, jobs: int, slots: int) -> float:
    """How long `slots` workers need to get `jobs` of this kind out of the queue: seconds, in 1..3600."""
    return round(min(MOST_WAIT_S, max(LEAST_WAIT_S, jobs * wall_s(conn, kind) / slots)), 1)


def queued(conn: Connection, kind: str) -> int:
    """How many jobs of this kind wait."""
    query = select(func.count()).select_from(job).where(job.c.state == "queued", job.c.kind == kind)
    return conn.execute(query).scalar_one()


def place(conn: Connection, job_id: str, *, slots: int, now: float) -> Place | None:
    """Where a job stands in the queue that `slots` workers empty; None once it runs or has ended. Raises NotFound."""
    found = conn.execute(select(job).where(job.c.id == job_id)).mappings().one_or_none()
    if found is None:
        raise NotFound(job_id=job_id)
    if found["state"] != "queued":
        return None
    sooner = or_(job.c.rank_at < found["rank_at"], and_(job.c.rank_at == found["rank_at"], job.c.id < job_id))
    same_kind = select(func.count()).select_from(job).where(job.c.kind == found["kind"])
    waiting = same_kind.where(
        job.c.state == "queued", job.c.rank_at <= found["rank_at"], sooner, job.c.not_before <= now
    )
    ahead = conn.execute(waiting).scalar_one()
    running = conn.execute(same_kind.where(job.c.state == "running")).scalar_one()
    ends_needed = max(0, ahead + running - slots + 1)
    eta_s = ends_needed * wall_s(conn, found["kind"]) / slots if ends_needed else 0.0
    return Place(ahead, round(max(eta_s, found["not_before"] - now), 1))


def counts(conn: Connection) -> dict[tuple[str, str], int]:
    """How many jobs there are of each (kind, state)."""
    query = select(job.c.kind, job.c.state, func.count()).group_by(job.c.state, job.c.kind)
    return {(kind, state): n for kind, state, n in conn.execute(query)}
