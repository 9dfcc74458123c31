"""The local runner: claims jobs, gives each a child process, and commits what it reports."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from callreel import metrics
from callreel.engines import frames
from callreel.errors import CallreelError, Conflict, StorageUnavailable
from callreel.jobs import store as jobs
from callreel.offline.pipeline import TranscribeOptions
from callreel.storage.database import Database
from callreel.storage.events import Events
from callreel.storage.folders import DataFolder
from callreel.tasks import transcribe
from callreel.tasks.messages import Failed, Progressed, Report, Transcribed, TranscribeOrder

log = logging.getLogger("callreel.jobs")

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 60.0
IDLE_S = 1.0  # between two looks for jobs whose time to be retried has come
STORE_RETRY_S = 1.0


class JobDied(CallreelError):
    """The job's process ended without a word: it was killed, or it ran out of memory."""

    code = "job_died"
    transient = True


class Runner:
    """`slots` jobs at once. `wake()` after an enqueue; `cancelled(job_id)` after a cancel in the store."""

    def __init__(
        self,
        database: Database,
        events: Events,
        folder: DataFolder,
        *,
        engine_socket: Path,
        engine_warnings: tuple[str, ...],
        slots: int,
        lease_s: float,
        memory_bytes: int,
    ) -> None:
        self._database, self._events, self._folder = database, events, folder
        self._engine_socket, self._warnings = engine_socket, engine_warnings
        self._slots, self._lease_s, self._memory_bytes = slots, lease_s, memory_bytes
        self._wake = asyncio.Event()
        self._children: dict[str, Process] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"runner-{i}") for i in range(self._slots)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        self._wake.set()

    def cancelled(self, job_id: str) -> None:
        """End the job's process now, wherever it is."""
        child = self._children.get(job_id)
        if child is not None and child.returncode is None:
            child.kill()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                job = await self._database.write(self._claim)
            except StorageUnavailable as error:
                log.error("no job can be claimed: %s", error)
                job = None
            if job is not None:
                await self._run(job)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), IDLE_S)

    def _claim(self, conn: Connection) -> jobs.Job | None:
        now = time.time()
        jobs.requeue_abandoned(conn, now)
        return jobs.claim(conn, lease_s=self._lease_s, now=now)

    async def _run(self, job: jobs.Job) -> None:
        log.info("job %s: attempt %d", job.id, job.attempts)
        self._publish(job)
        work = self._folder.work_of(job.id)
        work.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        heartbeat = asyncio.create_task(self._heartbeat(job))
        try:
            outcome = await self._child(job, work)
        except CallreelError as error:
            outcome = Failed(error.as_dict(), error.transient)
        finally:
            heartbeat.cancel()
            shutil.rmtree(work, ignore_errors=True)
        metrics.job_duration.labels(job.kind).observe(time.monotonic() - began)
        ended = await self._end(job, outcome)
        if ended is not None:
            metrics.jobs_ended.labels(job.kind, ended.state).inc()
            self._publish(ended)

    async def _child(self, job: jobs.Job, work: Path) -> Transcribed | Failed:
        """Run the job's process to its end; it dies with this task. Raises JobDied."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "callreel.tasks.child",
            str(self._memory_bytes),
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert child.stdin is not None and child.stdout is not None
        self._children[job.id] = child
        try:
            child.stdin.write(frames.pack(self._order(job, work)))
            while True:
                body = await frames.receive_async(child.stdout)
                report: Report = msgspec.msgpack.decode(body, type=Report)
                if not isinstance(report, Progressed):
                    return report
                await self._progressed(job, report)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise JobDied(exit_code=await child.wait()) from error
        finally:
            self._children.pop(job.id, None)
            if child.returncode is None:
                child.kill()
                await child.wait()

    def _order(self, job: jobs.Job, work: Path) -> TranscribeOrder:
        assert job.call_id is not None
        return TranscribeOrder(
            source=str(self._folder.source_of(job.call_id)),
            work=str(work),
            engine_socket=str(self._engine_socket),
            options=msgspec.convert(job.params, TranscribeOptions),
        )

    async def _progressed(self, job: jobs.Job, report: Progressed) -> None:
        progress = msgspec.to_builtins(report.progress)
        assert job.call_id is not None
        self._events.publish(job.call_id, "job", {"id": job.id, "state": "running", "progress": progress})
        try:
            await self._database.write(lambda conn: jobs.progress(conn, job.id, job.attempts, progress))
        except StorageUnavailable:
            log.warning("job %s: progress not stored", job.id)  # the next one will be

    async def _heartbeat(self, job: jobs.Job) -> None:
        """Keep the lease; a job that is not ours any more (cancelled) is stopped."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                if not await self._database.write(
                    lambda conn: jobs.heartbeat(conn, job.id, job.attempts, self._lease_s, time.time())
                ):
                    self.cancelled(job.id)
            except StorageUnavailable:
                log.warning("job %s: heartbeat not stored", job.id)

    async def _end(self, job: jobs.Job, outcome: Transcribed | Failed) -> jobs.Job | None:
        """Commit the outcome, however long the database is away; None if the attempt was not ours any more."""

        def end(conn: Connection) -> jobs.Job:
            if isinstance(outcome, Transcribed):
                return transcribe.commit(conn, job, outcome, self._warnings)
            retry_at = time.time() + backoff_s(job.attempts) if outcome.transient else None
            failed = jobs.fail(conn, job.id, job.attempts, outcome.error, retry_at=retry_at)
            if failed.state == "failed":
                transcribe.abandon(conn, failed)
            return failed

        while True:
            try:
                return await self._database.write(end)
            except Conflict:
                log.info("job %s: attempt %d is over, its outcome is dropped", job.id, job.attempts)
                return None
            except StorageUnavailable as error:
                log.error("job %s: its outcome waits for the database: %s", job.id, error)
                await asyncio.sleep(STORE_RETRY_S)

    def _publish(self, job: jobs.Job) -> None:
        assert job.call_id is not None
        self._events.publish(job.call_id, "job", {"id": job.id, "state": job.state, "error": job.error})


def backoff_s(attempt: int) -> float:
    """How long until attempt + 1: doubling, with jitter so that a crowd does not come back at once."""
    return random.uniform(0.5, 1.0) * min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** (attempt - 1))
