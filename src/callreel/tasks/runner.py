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
from dataclasses import dataclass
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
CALL_STATES = {"succeeded": "done", "failed": "failed", "cancelled": "failed"}  # what a job's end makes of its call


class JobDied(CallreelError):
    """The job's process ended without a word: it was killed, or it ran out of memory."""

    code = "job_died"
    transient = True


@dataclass(eq=False, slots=True)
class _Attempt:
    """One run of a job; once `over` its process is not wanted any more, also if it is only being started."""

    job: jobs.Job
    child: Process | None = None
    over: bool = False

    def end(self) -> None:
        self.over = True
        if self.child is not None and self.child.returncode is None:
            self.child.kill()


class Runner:
    """`slots` jobs at once. `wake()` after an enqueue; `cancelled(job)` after a cancel in the store."""

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
        self._attempts: set[_Attempt] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"runner-{i}") for i in range(self._slots)]

    async def stop(self) -> None:
        """End what runs; it is queued again, and the attempt does not count."""
        stopped = [attempt.job for attempt in self._attempts]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(StorageUnavailable):  # then the next start finds them, as after a crash
            await self._database.write(lambda conn: [jobs.release(conn, job.id, job.attempts) for job in stopped])

    def wake(self) -> None:
        self._wake.set()

    def cancelled(self, job: jobs.Job) -> None:
        """End the job's process now, wherever it is."""
        for attempt in self._attempts:
            if attempt.job.id == job.id:
                attempt.end()
        self._publish_end(job)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                abandoned, job = await self._database.write(self._claim)
                for lost in abandoned:
                    self._publish_end(lost)
                if job is not None:
                    await self._run(job)
                    continue
            except StorageUnavailable as error:
                log.error("no job can be claimed: %s", error)
            except Exception:  # a mistake of ours must not cost a slot
                log.exception("a job could not be brought to its end; it is queued again when its lease is over")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), IDLE_S)

    def _claim(self, conn: Connection) -> tuple[list[jobs.Job], jobs.Job | None]:
        now = time.time()
        failed = [job for job in requeue_abandoned(conn, now) if job.state == "failed"]
        return failed, jobs.claim(conn, kinds=(transcribe.KIND,), lease_s=self._lease_s, now=now)

    async def _run(self, job: jobs.Job) -> None:
        log.info("job %s: attempt %d", job.id, job.attempts)
        self._publish(job)
        attempt = _Attempt(job)
        self._attempts.add(attempt)
        # An attempt that lost its lease may still be ending while the next one begins: each has its own folder.
        work = self._folder.work_of(f"{job.id}.{job.attempts}")
        began = time.monotonic()
        heartbeat = asyncio.create_task(self._heartbeat(attempt))
        try:
            work.mkdir(parents=True, exist_ok=True)
            outcome = await self._child(attempt, work)
        except CallreelError as error:
            outcome = Failed(error.as_dict(), error.transient)
        except Exception as error:  # the machine is out of space or processes, or a mistake of ours
            log.exception("job %s: attempt %d could not be run", job.id, job.attempts)
            outcome = Failed(CallreelError(f"{type(error).__name__}: {error}").as_dict(), transient=True)
        finally:
            self._attempts.discard(attempt)
            heartbeat.cancel()
            shutil.rmtree(work, ignore_errors=True)
        metrics.job_duration.labels(job.kind).observe(time.monotonic() - began)
        ended = await self._end(job, outcome)
        if ended is not None:
            metrics.jobs_ended.labels(job.kind, ended.state).inc()
            if ended.usage is not None:
                metrics.transcription_rtfx.observe(ended.usage["rtfx"])
            self._publish_end(ended)

    async def _child(self, attempt: _Attempt, work: Path) -> Transcribed | Failed:
        """Run the job's process to its end; it dies with this task. Raises JobDied."""
        job = attempt.job
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
        attempt.child = child
        try:
            if attempt.over:
                child.kill()
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

    async def _heartbeat(self, attempt: _Attempt) -> None:
        """Keep the lease; an attempt that is over (the lease was lost) is stopped."""
        job = attempt.job
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                if not await self._database.write(
                    lambda conn: jobs.heartbeat(conn, job.id, job.attempts, self._lease_s, time.time())
                ):
                    attempt.end()
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
            except Exception as error:
                if isinstance(outcome, Failed):
                    raise
                log.exception("job %s: its outcome cannot be stored", job.id)
                outcome = Failed(CallreelError(f"{type(error).__name__}: {error}").as_dict(), transient=False)

    def _publish(self, job: jobs.Job) -> None:
        assert job.call_id is not None
        self._events.publish(job.call_id, "job", {"id": job.id, "state": job.state, "error": job.error})

    def _publish_end(self, job: jobs.Job) -> None:
        """Tell of a job that is over, or to be tried again, and of its call."""
        self._publish(job)
        if job.state in CALL_STATES:
            assert job.call_id is not None
            self._events.publish(job.call_id, "call", {"id": job.call_id, "state": CALL_STATES[job.state]})


def requeue_abandoned(conn: Connection, now: float, *, all_running: bool = False) -> list[jobs.Job]:
    """As `jobs.requeue_abandoned`; the calls of those that failed for good say so."""
    abandoned = [jobs.get(conn, job_id) for job_id in jobs.requeue_abandoned(conn, now, all_running=all_running)]
    for job in abandoned:
        if job.state == "failed":
            transcribe.abandon(conn, job)
    return abandoned


def backoff_s(attempt: int) -> float:
    """How long until attempt + 1: doubling, with jitter so that a crowd does not come back at once."""
    return random.uniform(0.5, 1.0) * min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** (attempt - 1))
