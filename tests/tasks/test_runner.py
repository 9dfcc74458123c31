"""The local runner over a real database, with real job processes: slots, leases, and what goes wrong."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from callreel import clock
from callreel.accounts import keys
from callreel.calls import store as calls
from callreel.jobs import store as jobs
from callreel.offline.pipeline import TranscribeOptions
from callreel.server.pool import EnginePool, PoolLimits, default_memory
from callreel.server.speech import Speech
from callreel.settings import Engines, Jobs, Settings
from callreel.storage.database import Database
from callreel.storage.events import EventHub
from callreel.storage.folders import DataFolder
from callreel.tasks import attempt as starting
from callreel.tasks import runner as module
from callreel.tasks import transcribe
from callreel.tasks.runner import Runner, RunnerLimits, backoff_s, requeue_abandoned
from callreel.text import text_of
from callreel.transcripts import store as transcripts

DEADLINE_S = 30.0


@dataclass
class Shop:
    database: Database
    folder: DataFolder
    runner: Runner
    client: str

    async def order(self, file: Path | None, sha256: str | None = None) -> jobs.Job:
        params = transcribe.Params(TranscribeOptions("en"), sha256=sha256)
        call_id = clock.new_id()
        job, _ = await self.database.write(
            lambda conn: transcribe.submit(
                conn, client_id=self.client, call_id=call_id, title="", params=params, priority="normal"
            )
        )
        source = self.folder.source_of(call_id)
        source.parent.mkdir(parents=True)
        if file is not None:
            shutil.copyfile(file, source)
        self.runner.wake()
        return job

    async def until(self, job: jobs.Job, condition: Callable[[jobs.Job], bool]) -> jobs.Job:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            found = await self.database.read(lambda conn: jobs.get(conn, job.id))
            if condition(found):
                return found
            assert time.monotonic() < deadline, found

    async def ended(self, job: jobs.Job) -> jobs.Job:
        return await self.until(job, lambda found: found.finished_at is not None)

    async def call_state(self, job: jobs.Job) -> str:
        assert job.call_id is not None
        call_id = job.call_id
        return (await self.database.read(lambda conn: calls.get_call(conn, call_id, self.client))).state


@asynccontextmanager
async def shop(data: Path, model: Path, slots: int = 1, **limits: Any) -> AsyncIterator[Shop]:
    folder = DataFolder(data)
    database = Database.open(data)
    folder.create()
    pool = EnginePool(folder.run, PoolLimits(default_memory()))
    settings = Settings(data_dir=data, engine="whisper", model=str(model), engines=Engines(threads=2))
    limits = {"cache_ttl_s": 0.0, **limits}
    runner = Runner(
        database, EventHub(), folder, Speech(settings, pool), RunnerLimits({transcribe.KIND: slots}, **limits)
    )
    runner.start()
    try:
        yield Shop(database, folder, runner, await database.write(keys.ensure_local_client))
    finally:
        await runner.stop()
        await pool.stop()
        database.close()


def in_work(folder: DataFolder) -> list[str]:
    return [path.name for path in folder.work.iterdir()]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(module, "IDLE_S", 0.05)


def test_several_slots_do_all_jobs_once(tmp_path: Path, toy_model: Path, toy_audio: Path) -> None:
    async def run() -> None:
        async with shop(tmp_path, toy_model, slots=2) as s:
            orders = [await s.order(toy_audio / "en_short.wav") for _ in range(3)]
            for order in orders:
                done = await s.ended(order)
                assert (done.state, done.attempts) == ("succeeded", 1)
                found = await s.database.read(lambda conn, o=order: transcripts.of_call(conn, o.call_id))
                assert len(found) == 1 and found[0].job_id == order.id
            async with asyncio.timeout(DEADLINE_S):
                while in_work(s.folder):  # noqa: ASYNC110  files tell nobody that they go
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_the_same_file_again_is_answered_from_what_was_written_then(
    tmp_path: Path, toy_model: Path, toy_audio: Path
) -> None:
    async def run() -> None:
        async with shop(tmp_path, toy_model, cache_ttl_s=60.0) as s:
            first = await s.ended(await s.order(toy_audio / "en_short.wav", sha256="a" * 64))
            again = await s.ended(await s.order(toy_audio / "en_short.wav", sha256="a" * 64))
            other = await s.ended(await s.order(toy_audio / "en_short.wav", sha256="b" * 64))
            unknown = await s.ended(await s.order(toy_audio / "en_short.wav"))
            ended = (first, again, other, unknown)
            assert [job.state for job in ended] == ["succeeded"] * 4
            assert [job.result and job.result.get("cached") for job in ended] == [None, True, None, None]
            texts = []
            for job in ended:
                (found,) = await s.database.read(lambda conn, j=job: transcripts.of_call(conn, j.call_id or ""))
                texts.append(text_of(await s.database.read(lambda conn, t=found: transcripts.segments(conn, t.id))))
                assert await s.call_state(job) == "done"
            assert texts[0] and len(set(texts)) == 1

    asyncio.run(run())


def test_a_mistake_of_ours_costs_a_job_and_no_slot(
    tmp_path: Path, toy_model: Path, toy_audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_commit = transcribe.commit

    def bad_commit(conn: Connection, job: jobs.Job, *rest: Any) -> jobs.Job:
        if job.id == bad[0]:
            raise RuntimeError("a bug in the commit")
        return good_commit(conn, job, *rest)

    bad: list[str] = []
    monkeypatch.setattr(transcribe, "commit", bad_commit)

    async def run() -> None:
        async with shop(tmp_path, toy_model, slots=1) as s:
            first = await s.order(toy_audio / "en_short.wav")
            bad.append(first.id)
            failed = await s.ended(first)
            assert failed.state == "failed" and failed.error is not None
            assert "a bug in the commit" in failed.error["message"] and await s.call_state(first) == "failed"
            assert (await s.ended(await s.order(toy_audio / "en_short.wav"))).state == "succeeded"

    asyncio.run(run())


def test_a_process_that_cannot_be_started_is_tried_again(
    tmp_path: Path, toy_model: Path, toy_audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, python = starting.sys.executable, tmp_path / "no-python"

    async def run() -> None:
        async with shop(tmp_path / "data", toy_model) as s:
            monkeypatch.setattr(starting.sys, "executable", str(python))
            order = await s.order(toy_audio / "en_short.wav")
            await s.until(order, lambda found: found.attempts >= 1 and found.error is not None)
            monkeypatch.setattr(starting.sys, "executable", real)
            done = await s.ended(order)
            assert done.state == "succeeded" and 2 <= done.attempts <= 3

    asyncio.run(run())


def test_the_least_memory_that_may_be_set_is_enough_for_a_short_file(
    tmp_path: Path, toy_model: Path, toy_audio: Path
) -> None:
    (least,) = (rule.ge for rule in Jobs.model_fields["memory"].metadata if hasattr(rule, "ge"))

    async def run() -> None:
        async with shop(tmp_path, toy_model, memory_bytes=least) as s:
            done = await s.ended(await s.order(toy_audio / "en_short.wav"))
            assert (done.state, done.attempts) == ("succeeded", 1), done.error

    asyncio.run(run())


def test_a_missing_file_is_unreadable_and_not_tried_again(tmp_path: Path, toy_model: Path) -> None:
    async def run() -> None:
        async with shop(tmp_path, toy_model) as s:
            failed = await s.ended(await s.order(None))
            assert failed.error is not None
            assert (failed.attempts, failed.error["code"]) == (1, "unreadable_media")
            assert failed.error["hint"]

    asyncio.run(run())


@pytest.mark.slow
def test_an_attempt_that_lost_its_lease_is_stopped_and_changes_nothing(
    tmp_path: Path, toy_model: Path, toy_audio: Path
) -> None:
    async def run() -> None:
        async with shop(tmp_path, toy_model, lease_s=3.0, slots=2) as s:
            order = await s.order(toy_audio / "en_long_50s.flac")
            await s.until(order, lambda found: found.progress.get("step") == "transcribe")
            await s.database.write(lambda conn: jobs.requeue_abandoned(conn, time.time(), all_running=True))
            s.runner.wake()
            done = await s.ended(order)
            assert (done.state, done.attempts) == ("succeeded", 2)
            assert len(await s.database.read(lambda conn: transcripts.of_call(conn, order.call_id or ""))) == 1

    asyncio.run(run())


@pytest.mark.slow
def test_a_runner_that_stops_gives_its_job_back(tmp_path: Path, toy_model: Path, toy_audio: Path) -> None:
    async def run() -> None:
        async with shop(tmp_path, toy_model) as s:
            order = await s.order(toy_audio / "en_long_50s.flac")
            await s.until(order, lambda found: found.progress.get("step") == "transcribe")
            await s.runner.stop()
            given_back = await s.database.read(lambda conn: jobs.get(conn, order.id))
            assert (given_back.state, given_back.lease_until) == ("queued", None)
            assert given_back.max_attempts == order.max_attempts + 1

    asyncio.run(run())


def test_a_job_lost_too_often_fails_and_its_call_says_so(tmp_path: Path) -> None:
    database = Database.open(tmp_path)

    def lose(conn: Connection) -> tuple[list[jobs.Job], calls.Call]:
        client = keys.ensure_local_client(conn)
        call = calls.create_call(conn, client_id=client, mode="postcall_only", state="processing")
        jobs.enqueue(conn, client_id=client, kind=transcribe.KIND, params={}, call_id=call.id)
        lost: list[jobs.Job] = []
        for now in range(3):
            assert jobs.claim(conn, kinds=(transcribe.KIND,), lease_s=1.0, now=now * 10.0) is not None
            lost += requeue_abandoned(conn, now * 10.0 + 5.0)
        return lost, calls.get_call(conn, call.id, client)

    lost, call = database.submit(lose).result()
    assert [job.state for job in lost] == ["queued", "queued", "failed"]
    assert call.state == "failed"
    database.close()


def test_retries_wait_longer_and_longer_and_not_all_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 1.0)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (30, 60.0)):
        waits = [backoff_s(attempt) for _ in range(50)]
        assert all(most / 2 <= wait <= most for wait in waits) and len(set(waits)) > 1
