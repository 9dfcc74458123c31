"""Deleting: what a client asks for, and what is too old, left over or wanted by nobody.

Rows go first, then files: whatever ends the process in between leaves files without a row, which the next round
removes, and never a row without its files.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from functools import partial

from sqlalchemy import Connection, exists, select

from callreel import clock
from callreel.calls import deletion
from callreel.calls import store as calls
from callreel.errors import CallreelError, Conflict, NotFound
from callreel.jobs import removal as old_jobs
from callreel.jobs import store as jobs
from callreel.jobs import webhooks
from callreel.settings import Retention
from callreel.storage import removal, tables
from callreel.storage.database import Database
from callreel.storage.folders import DataFolder
from callreel.tasks import transcribe
from callreel.tasks.runner import Runner

log = logging.getLogger("callreel.cleaner")

DAY_S = 86_400.0
IDS_A_QUERY = 1000  # a statement takes 32,766 values at most
ORPHAN_S = 3600.0  # files that no row tells of by then are left over; so are calls whose one reader has gone


async def delete_call(runner: Runner, call_id: str, client_id: str) -> None:
    """A client's call with everything under it; its jobs are cancelled. Raises NotFound, Conflict while it is live."""

    def delete(conn: Connection) -> tuple[list[jobs.Job], list[str]]:
        calls.get_call(conn, call_id, client_id)
        cancelled = [transcribe.cancel(conn, job_id, client_id) for job_id in jobs.unfinished(conn, call_id)]
        return cancelled, deletion.delete_call(conn, call_id, client_id)

    cancelled, job_ids = await runner.database.write(delete)
    for job in cancelled:
        runner.cancelled(job)
    await asyncio.to_thread(_remove_files, runner.folder, call_id, job_ids)


async def _remove(database: Database, folder: DataFolder, call_id: str) -> None:
    job_ids = await database.write(lambda conn: deletion.delete_call(conn, call_id))
    await asyncio.to_thread(_remove_files, folder, call_id, job_ids)


def _remove_files(folder: DataFolder, call_id: str, job_ids: Collection[str]) -> None:
    removal.remove_call(folder, call_id)
    for job_id in job_ids:
        removal.remove_job(folder, job_id)


class Cleaner:
    """Goes round every `interval_s`, from the start on."""

    def __init__(self, database: Database, folder: DataFolder, retention: Retention, *, interval_s: float) -> None:
        self._database, self._folder = database, folder
        self._retention, self._interval_s = retention, interval_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work(), name="cleaner")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            try:
                await self.clean()
            except CallreelError as error:
                log.warning("not all could be cleaned up: %s", error)
            except Exception:  # the next round may do better, and nobody else would go it
                log.exception("not all could be cleaned up")
            await asyncio.sleep(self._interval_s)

    async def clean(self) -> None:
        """One round."""
        keep = self._retention
        await self._calls(lambda conn: _unkept(conn, clock.ago(ORPHAN_S)), "nobody came back for")
        if keep.calls_days:
            oldest = clock.ago(keep.calls_days * DAY_S)
            await self._calls(lambda conn: deletion.old_calls(conn, oldest), "too old")
        if keep.jobs_days:
            before = clock.ago(keep.jobs_days * DAY_S)
            await self._jobs(before)
            while await self._database.write(lambda conn: webhooks.remove_ended(conn, before)):
                pass
        if keep.sources_days:
            await self._sources(time.time() - keep.sources_days * DAY_S)
        await self._orphans(time.time() - ORPHAN_S)

    async def _calls(self, found: deletion.Finder, why: str) -> None:
        skipped: set[str] = set()
        while todo := [call_id for call_id in await self._database.read(found) if call_id not in skipped]:
            for call_id in todo:
                try:
                    await _remove(self._database, self._folder, call_id)
                    log.info("call %s is deleted: %s", call_id, why)
                except (Conflict, NotFound):  # at work again, or deleted by its client
                    skipped.add(call_id)

    async def _jobs(self, before: str) -> None:
        while gone := await self._database.write(lambda conn: old_jobs.remove_finished(conn, before)):
            for job_id in gone:
                await asyncio.to_thread(removal.remove_job, self._folder, job_id)
            log.info("%d jobs are forgotten: too old", len(gone))

    async def _sources(self, before: float) -> None:
        needed = await self._database.read(jobs.calls_at_work)
        gone = await asyncio.to_thread(removal.remove_sources, self._folder, before, needed)
        if gone:
            log.info("the files of %d calls are deleted: too old", len(gone))

    async def _orphans(self, before: float) -> None:
        found = await asyncio.to_thread(removal.calls_with_files, self._folder, before)
        for call_id in await self._without_row(found, deletion.existing):
            await asyncio.to_thread(removal.remove_call, self._folder, call_id)
            log.info("files of call %s, which there is no more, are deleted", call_id)
        logs = await asyncio.to_thread(removal.jobs_with_logs, self._folder, before)
        for job_id in await self._without_row(logs, jobs.existing):
            await asyncio.to_thread(removal.remove_job, self._folder, job_id)

    async def _without_row(self, ids: set[str], existing: Callable[..., set[str]]) -> list[str]:
        left = []
        for at in range(0, len(listed := sorted(ids)), IDS_A_QUERY):
            part = listed[at : at + IDS_A_QUERY]
            there = await self._database.read(partial(existing, ids=part))
            left += [one for one in part if one not in there]
        return left


def _unkept(conn: Connection, before: str, limit: int = 100) -> list[str]:
    """Calls that were not to be kept and whose jobs ended before then (RFC 3339): who asked never came back."""
    job, call = tables.job, tables.call
    ended = select(job.c.call_id).where(job.c.finished_at < before, job.c.params["kept"].as_boolean().is_(False))
    return list(conn.execute(ended.where(exists().where(call.c.id == job.c.call_id)).limit(limit)).scalars())
