"""Deleting a job for its client: its row first, then its files, so that there is no job whose log is gone."""

from __future__ import annotations

import asyncio

from callreel.jobs import removal
from callreel.server.services import Services
from callreel.storage.removal import remove_job


async def forget_job(house: Services, job_id: str, client_id: str) -> None:
    """Delete a job that has ended, with its log and what it kept to go on from; what it made stays.

    Raises NotFound, and Conflict for a job that has not ended.
    """
    await house.database.write(lambda conn: removal.remove(conn, job_id, client_id))
    await asyncio.to_thread(remove_job, house.folder, job_id)
