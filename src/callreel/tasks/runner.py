"""The local runner: claims jobs, gives each a child process, and commits what it reports."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from sqlalchemy import Connection

from callreel import clock, metrics
from callreel.engines.base import EngineSpec
from callreel.errors import CallreelError, Conflict, ModelMissing, StorageUnavailable, disk_fault
from callreel.jobs import store as jobs
from callreel.offline.outcome import Progress
from callreel.storage import removal
from callreel.storage.database import Database
from callreel.storage.events import Events
from callreel.storage.folders import DataFolder
from callreel.tasks import transcribe
from callreel.tasks.attempt import Attempt
from callreel.tasks.messages import Failed, Outcome, Progressed, Source, Spoken, Transcribed, TranscribeOrder

log = logging.getLogger("callreel.jobs")

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 60.0
IDLE_S = 1.0  # between two looks for jobs whose time to be retried has come
STORE_RETRY_S = 1.0
CALL_STATES = {"succeeded": "done", "failed": "failed", "cancelled": "failed"}  # what a job's end makes of its call


class Lease(Protocol):
    """An engine at `path`; set `broken` where it turns out not to work."""

    path: Path
    broken: bool


class Engines(Protocol):
    """Where a job gets its engine from."""

    async def resolve(
        self, engine: str | None, model: str | None, on_progress: Callable[[float], Awaitable[None]]
    ) -> tuple[EngineSpec, list[str]]:
        """What to load for what was asked for, its model on this machine, and what its transcripts must say.

        `on_progress` is told percents of a download. Raises InvalidInput, ModelMissing.
        """
        ...

    def lease(self, role: Literal["live", "batch"], spec: EngineSpec) -> AbstractAsyncContextManager[Lease]: ...


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """`slots` is how many jobs of each kind run at once; the rest is as in the settings of the same names."""

    slots: dict[str, int]
    lease_s: float = 30.0
    memory_bytes: int = 8 << 30
    batch_min: int = 1
    batch_max: int = 8
    max_audio_s: float = 24 * 3600.0
    max_file_bytes: int = 500 * 10**6
    fetch_timeout_s: float = 600.0
    allow_networks: tuple[str, ...] = ()
    cache_ttl_s: float = 3600.0
    performance: bool = False  # a line a job in the server's log


class Runner:
    """As many jobs at once as their kinds have slots. `wake()` after an enqueue; `cancelled(job)` after a cancel."""

    def __init__(
        self, database: Database, events: Events, folder: DataFolder, engines: Engines, limits: RunnerLimits
    ) -> None:
        self.database, self.folder, self._events = database, folder, events
        self._engines, self.limits = engines, limits
        self._wake = asyncio.Event()
        self._attempts: set[Attempt] = set()
        self._dispatcher: asyncio.Task[None] | None = None
        self._running: dict[asyncio.Task[None], str] = {}  # the kind each is of
        self._interrupted: list[jobs.Job] = []  # claimed, and not brought to an end before this runner stopped

    def start(self) -> None:
        self._dispatcher = asyncio.create_task(self._dispatch(), name="runner")

    async def stop(self) -> None:
        """End what runs; it is queued again, and the attempt does not count."""
        tasks = [task for task in (self._dispatcher, *self._running) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(StorageUnavailable):  # then the next start finds them, as after a crash
            held = self._interrupted
            await self.database.write(lambda conn: [jobs.release(conn, job.id, job.attempts) for job in held])

    def wake(self) -> None:
        self._wake.set()

    def cancelled(self, job: jobs.Job) -> None:
        """End the job's process now, wherever it is."""
        at_work = [attempt for attempt in self._attempts if attempt.job.id == job.id]
        for attempt in at_work:
            attempt.cancelled = True
            attempt.end()
        if not at_work:  # else it is cleared when the process, which still writes, is gone
            asyncio.get_running_loop().run_in_executor(None, self._clear, job)
        self._publish_end(job)

    async def _dispatch(self) -> None:
        while True:
            self._wake.clear()
            try:
                abandoned, job = await self._claimed()
                for lost in abandoned:
                    self._publish_end(lost)
                if job is not None:
                    self._begin(job)
                    continue
            except StorageUnavailable as error:
                log.error("no job can be claimed: %s", error)
            except Exception:  # a mistake of ours must not end the claiming for good
                log.exception("no job can be claimed")
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):  # wait_for would swallow a cancel that comes with the wake
                    await self._wake.wait()

    async def _claimed(self) -> tuple[list[jobs.Job], jobs.Job | None]:
        claim = asyncio.ensure_future(self.database.write(partial(self._claim, self._kinds_with_room())))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:  # what the database has begun it ends: nobody else knows of this job
            if (job := (await claim)[1]) is not None:
                self._interrupted.append(job)
            raise

    def _kinds_with_room(self) -> list[str]:
        busy = Counter(self._running.values())
        return [kind for kind, slots in self.limits.slots.items() if busy[kind] < slots]

    def _claim(self, kinds: list[str], conn: Connection) -> tuple[list[jobs.Job], jobs.Job | None]:
        now = time.time()
        failed = [job for job in requeue_abandoned(conn, now) if job.state == "failed"]
        return failed, jobs.claim(conn, kinds=kinds, lease_s=self.limits.lease_s, now=now)

    def _begin(self, job: jobs.Job) -> None:
        task = asyncio.create_task(self._run(job), name=f"job-{job.id}")
        self._running[task] = job.kind

        def ended(task: asyncio.Task[None]) -> None:
            del self._running[task]
            self.wake()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("job %s: it is queued again when its lease is over", job.id, exc_info=error)

        task.add_done_callback(ended)

    async def _run(self, job: jobs.Job) -> None:
        log.info("job %s: attempt %d", job.id, job.attempts)
        self._publish(job)
        attempt = Attempt(job)
        self._attempts.add(attempt)
        heartbeat = asyncio.create_task(self._heartbeat(attempt))  # also while the outcome waits for the database
        try:
            began = time.monotonic()
            outcome = await self._come_to(attempt)
            metrics.job_duration.labels(job.kind).observe(time.monotonic() - began)
            ended = await self._end(attempt, outcome)
        except asyncio.CancelledError:
            self._interrupted.append(job)
            raise
        finally:
            self._attempts.discard(attempt)
            heartbeat.cancel()
        if ended is not None:
            metrics.jobs_ended.labels(job.kind, ended.state).inc()
            self._tell_usage(ended)
        if attempt.cancelled or (ended is not None and ended.state in jobs.FINISHED):
            await asyncio.to_thread(self._clear, ended or job)
        if ended is not None:
            self._publish_end(ended)

    async def _come_to(self, attempt: Attempt) -> Outcome | jobs.Job:
        """What `_outcome` says, or why it could not say anything."""
        job = attempt.job
        try:
            return await self._outcome(attempt)
        except CallreelError as error:
            return Failed(error.as_dict(), error.transient)
        except OSError as error:
            fault = disk_fault(error, f"The job could not be started: {error.strerror}")
            return Failed(fault.as_dict(), fault.transient)
        except Exception as error:  # the machine is out of space or processes, or a mistake of ours
            log.exception("job %s: attempt %d could not be run", job.id, job.attempts)
            return Failed(CallreelError(f"{type(error).__name__}: {error}").as_dict(), transient=True)

    async def _outcome(self, attempt: Attempt) -> Outcome | jobs.Job:
        """What the attempt comes to; a job of the same client that has come to it before."""
        job, params = attempt.job, transcribe.Params.of(attempt.job)

        async def downloading(percent: float) -> None:
            await self._report(job, Progressed(Progress(round(percent, 1), "download model")))

        spec, warnings = await self._engines.resolve(params.engine, params.model, downloading)
        attempt.warnings = tuple(warnings)
        attempt.cache_key = await asyncio.to_thread(transcribe.cache_key, params, spec)
        if (earlier := await self._cached(job, attempt.cache_key)) is not None:
            return earlier
        folder = self.folder.work_of(job.id)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        async with self._engines.lease("batch", spec) as lease:
            outcome = await attempt.run(
                self._order(job, params, folder, lease.path),
                lambda report: self._report(job, report),
                log_file=self.folder.log_of(job.id),
                memory_bytes=self.limits.memory_bytes,
            )
            lease.broken = isinstance(outcome, Failed) and outcome.error["code"] == ModelMissing.code
            return outcome

    async def _cached(self, job: jobs.Job, cache_key: str | None) -> jobs.Job | None:
        if cache_key is None or self.limits.cache_ttl_s == 0:
            return None
        since = clock.ago(self.limits.cache_ttl_s)
        return await self.database.read(lambda conn: jobs.cached(conn, job.client_id, cache_key, since=since))

    def _order(self, job: jobs.Job, params: transcribe.Params, work: Path, engine: Path) -> TranscribeOrder:
        assert job.call_id is not None
        limits = self.limits
        return TranscribeOrder(
            source=Source(
                path=str(self.folder.source_of(job.call_id)),
                url=params.url,
                allow_networks=limits.allow_networks,
                max_bytes=limits.max_file_bytes,
                timeout_s=limits.fetch_timeout_s,
            ),
            work=str(work),
            engine_socket=str(engine),
            options=params.options,
            batch_min=limits.batch_min,
            batch_max=limits.batch_max,
            max_audio_s=limits.max_audio_s,
        )

    async def _report(self, job: jobs.Job, report: Progressed | Spoken) -> None:
        """Tell the watchers, and store progress; what cannot be stored now is followed by what can."""
        if isinstance(report, Spoken):
            self._events.publish(job.id, "segments", {"segments": report.segments})
            return
        progress = msgspec.to_builtins(report.progress)
        self._tell(job, {"id": job.id, "state": "running", "progress": progress})
        try:
            await self.database.write(lambda conn: jobs.progress(conn, job.id, job.attempts, progress))
        except StorageUnavailable:
            log.warning("job %s: progress not stored", job.id)

    async def _heartbeat(self, attempt: Attempt) -> None:
        """Keep the lease; an attempt that is over (the lease was lost) is stopped."""
        job, lease_s = attempt.job, self.limits.lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            try:
                if not await self.database.write(
                    lambda conn: jobs.heartbeat(conn, job.id, job.attempts, lease_s, time.time())
                ):
                    attempt.end()
            except Exception as error:  # the next one may be
                log.warning("job %s: heartbeat not stored: %s", job.id, error)

    async def _end(self, attempt: Attempt, outcome: Outcome | jobs.Job) -> jobs.Job | None:
        """Commit the outcome, however long the database is away; None if the attempt was not ours any more."""
        job = attempt.job

        def end(conn: Connection) -> jobs.Job:
            if isinstance(outcome, Transcribed):
                return transcribe.commit(conn, job, outcome, attempt.warnings, attempt.cache_key)
            if isinstance(outcome, jobs.Job):
                return transcribe.commit_cached(conn, job, outcome)
            retry_at = time.time() + backoff_s(job.attempts) if outcome.transient else None
            failed = jobs.fail(conn, job.id, job.attempts, outcome.error, retry_at=retry_at)
            if failed.state == "failed":
                transcribe.abandon(conn, failed)
            return failed

        while True:
            try:
                return await self.database.write(end)
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

    def _clear(self, job: jobs.Job) -> None:
        """Remove what served to resume a job that has ended, and of one that came to nothing its file too."""
        removal.remove_work(self.folder, job.id)
        if job.state != "succeeded" and job.call_id is not None:
            removal.remove_source(self.folder, job.call_id)

    def _tell_usage(self, job: jobs.Job) -> None:
        if job.state != "succeeded" or job.usage is None:
            return
        metrics.transcription_rtfx.observe(job.usage["rtfx"])
        if self.limits.performance:
            used = job.usage
            log.info(
                "job %s: %.1f s for %.1f s of audio (RTFx %.1f), %.0f MB, %.0f %% CPU",
                job.id,
                used["wall_s"],
                used["audio_s"],
                used["rtfx"],
                used["peak_rss_bytes"] / 1e6,
                100 * used["cpu_s"] / used["wall_s"],
            )

    def _publish(self, job: jobs.Job) -> None:
        self._tell(job, {"id": job.id, "state": job.state, "error": job.error})

    def _tell(self, job: jobs.Job, data: dict[str, object]) -> None:
        """To those who watch the job, and those who watch its call."""
        self._events.publish(job.id, "job", data)
        assert job.call_id is not None
        self._events.publish(job.call_id, "job", data)

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
