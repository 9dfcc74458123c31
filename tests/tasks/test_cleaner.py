"""The cleaner over a real database and folder: what is too old goes, and nothing that somebody may still want."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, update

from callreel import clock
from callreel.accounts import keys
from callreel.calls import store as calls
from callreel.jobs import store as jobs
from callreel.jobs import webhooks
from callreel.offline.pipeline import TranscribeOptions
from callreel.settings import Retention
from callreel.storage import tables
from callreel.storage.database import Database
from callreel.storage.folders import DataFolder
from callreel.tasks import transcribe
from callreel.tasks.cleaner import DAY_S, ORPHAN_S, Cleaner

OLD = 10 * DAY_S


@dataclass
class Place:
    database: Database
    folder: DataFolder
    client: str

    async def call(self, *, age_s: float = 0.0, state: str = "succeeded", kept: bool = True) -> tuple[str, str]:
        """The ids of a call with a file, and of its job, both so old."""
        call_id = clock.new_id()
        params = transcribe.Params(TranscribeOptions(), kept=kept)
        at = clock.ago(age_s)

        def make(conn: Connection) -> str:
            job, _ = transcribe.submit(
                conn, client_id=self.client, call_id=call_id, title="", params=params, priority="normal"
            )
            if state != "queued":
                calls.finish_call(conn, call_id, state="done", duration_s=1.0, language=None)
                ended = {"state": state, "finished_at": at}
                conn.execute(update(tables.job).where(tables.job.c.id == job.id).values(ended))
            conn.execute(update(tables.call).where(tables.call.c.id == call_id).values(created_at=at))
            return job.id

        job_id = await self.database.write(make)
        for path in (self.folder.source_of(call_id), self.folder.work_of(job_id) / "x", self.folder.log_of(job_id)):
            aged(path, age_s)
        return call_id, job_id

    async def clean(self, **retention: float) -> None:
        await Cleaner(self.database, self.folder, Retention(**retention), interval_s=300.0).clean()

    async def calls(self) -> set[str]:
        page = await self.database.read(lambda conn: calls.list_calls(conn, self.client))
        return {call.id for call in page.data}

    async def jobs(self) -> set[str]:
        page = await self.database.read(lambda conn: jobs.list_page(conn, self.client))
        return {job.id for job in page.data}


def aged(path: Path, age_s: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"sound")
    for touched in (path, path.parent):
        os.utime(touched, (time.time() - age_s,) * 2)


@asynccontextmanager
async def place(data: Path) -> AsyncIterator[Place]:
    folder, database = DataFolder(data), Database.open(data)
    folder.create()
    try:
        yield Place(database, folder, await database.write(keys.ensure_local_client))
    finally:
        database.close()


def run(data: Path, what: Any) -> None:
    async def main() -> None:
        async with place(data) as p:
            await what(p)

    asyncio.run(main())


def test_calls_that_are_too_old_go_with_everything(tmp_path: Path) -> None:
    async def what(p: Place) -> None:
        old, old_job = await p.call(age_s=OLD)
        waiting, _ = await p.call(age_s=OLD, state="queued")
        young, young_job = await p.call()
        await p.clean(jobs_days=0)
        assert await p.calls() == {old, waiting, young}  # by default calls are kept for ever
        await p.clean(calls_days=9, jobs_days=0)
        assert await p.calls() == {waiting, young}
        assert not p.folder.source_of(old).parent.exists() and not p.folder.log_of(old_job).exists()
        assert not p.folder.work_of(old_job).exists()
        assert p.folder.source_of(young).exists() and p.folder.log_of(young_job).exists()
        await p.clean(calls_days=9, jobs_days=0)  # what cannot be deleted now holds up no round

    run(tmp_path, what)


def test_jobs_that_are_too_old_are_forgotten_and_their_calls_stay(tmp_path: Path) -> None:
    async def what(p: Place) -> None:
        call, old_job = await p.call(age_s=OLD)
        _, young_job = await p.call()
        await p.clean(jobs_days=9)
        assert await p.jobs() == {young_job} and call in await p.calls()
        assert p.folder.source_of(call).exists() and not p.folder.log_of(old_job).exists()

    run(tmp_path, what)


def test_deliveries_are_forgotten_with_the_jobs_they_tell_of(tmp_path: Path) -> None:
    async def what(p: Place) -> None:
        def make(conn: Connection) -> str:
            hook = webhooks.create(conn, client_id=p.client, url="https://example.com/", events=["job"])
            for _ in range(3):
                webhooks.tell(conn, p.client, "job", {})
            for days in (10, 8):  # and one that was never sent, however old
                _, delivery = webhooks.claim(conn, now=time.time(), lease_s=60, limit=1)[0]
                webhooks.delivered(conn, delivery, 200)
                ended = update(tables.delivery).where(tables.delivery.c.id == delivery.id)
                conn.execute(ended.values(ended_at=clock.ago(days * DAY_S)))
            return hook.id

        hook = await p.database.write(make)
        await p.clean(jobs_days=9)
        left = await p.database.read(lambda conn: webhooks.deliveries(conn, hook, p.client))
        assert [delivery.state for delivery in left.data] == ["pending", "delivered"]

    run(tmp_path, what)


def test_files_that_are_too_old_go_unless_a_job_needs_them(tmp_path: Path) -> None:
    async def what(p: Place) -> None:
        old, _ = await p.call(age_s=OLD)
        waiting, _ = await p.call(age_s=OLD, state="queued")
        await p.clean(sources_days=9, jobs_days=0)
        assert not p.folder.source_of(old).exists() and p.folder.source_of(waiting).exists()
        assert await p.calls() == {old, waiting}

    run(tmp_path, what)


def test_what_was_not_to_be_kept_goes_when_nobody_came_back_for_it(tmp_path: Path) -> None:
    async def what(p: Place) -> None:
        left, _ = await p.call(age_s=2 * ORPHAN_S, kept=False)
        fresh, _ = await p.call(kept=False)
        kept, _ = await p.call(age_s=2 * ORPHAN_S)
        await p.clean()
        assert await p.calls() == {fresh, kept} and not p.folder.source_of(left).exists()

    run(tmp_path, what)


def test_files_without_a_row_go_once_nobody_can_be_about_to_write_it(tmp_path: Path) -> None:
    async def what(p: Place) -> None:
        kept, _ = await p.call(age_s=2 * ORPHAN_S)
        orphan, upload = p.folder.source_of(clock.new_id()), p.folder.source_of(clock.new_id())
        aged(orphan, 2 * ORPHAN_S)
        aged(upload, 0.0)
        log = p.folder.live / clock.new_id() / "1" / "0.s16"
        aged(log, 0.0)
        of_no_job, of_a_job = p.folder.log_of(clock.new_id()), p.folder.log_of((await p.call(age_s=2 * ORPHAN_S))[1])
        aged(of_no_job, 2 * ORPHAN_S)
        await p.clean()
        assert not orphan.parent.exists() and upload.exists() and log.exists()
        assert not of_no_job.exists() and of_a_job.exists()
        assert p.folder.source_of(kept).exists()

    run(tmp_path, what)


def test_it_goes_round_by_itself_and_stops(tmp_path: Path) -> None:
    async def what(p: Place) -> None:
        cleaner = Cleaner(p.database, p.folder, Retention(calls_days=9), interval_s=0.01)
        old, _ = await p.call(age_s=OLD)
        cleaner.start()
        async with asyncio.timeout(30):
            while old in await p.calls():
                pass
        again, _ = await p.call(age_s=OLD)
        async with asyncio.timeout(30):
            while again in await p.calls():
                pass
        await cleaner.stop()

    run(tmp_path, what)
