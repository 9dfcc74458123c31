"""A job whose client waits for it on an open connection: what happens to it, what comes of it, what is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from fastapi import Request
from sqlalchemy import Connection
from starlette.requests import ClientDisconnect

from callreel import clock
from callreel.calls import store as calls
from callreel.errors import CallreelError, Cancelled, Conflict, NotFound, ServerStops
from callreel.jobs import store as jobs
from callreel.server.intake import Order, submit
from callreel.server.services import Services
from callreel.storage.events import Subscription
from callreel.storage.removal import remove_call
from callreel.tasks import transcribe
from callreel.text import Segment
from callreel.transcripts import store as transcripts

T = TypeVar("T")

_leaving: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected in its middle


@dataclass(frozen=True, slots=True)
class News:
    """What happened to a job: how far it is ({percent, step, eta_s}), or segments that are certain now, in order."""

    progress: dict[str, Any] | None = None
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What a job has come to."""

    job: jobs.Job
    call: calls.Call
    transcript: transcripts.Transcript
    segments: list[Segment]


class Waiting:
    """Begin it with `begin`, read `news` to its end, then `done` is there; `leave` it in any case.

    A job that is left before its end is cancelled, and nothing of it stays; one that was asked for without being kept
    leaves its row alone, which says what it cost.
    """

    def __init__(self, house: Services, order: Order, job: jobs.Job, watched: Subscription) -> None:
        self.job = job
        self.done: Done | None = None
        self._house, self._order, self._watched = house, order, watched
        self._ended = False

    @classmethod
    async def begin(cls, house: Services, order: Order) -> Waiting:
        """Ahead of all that is queued with less priority. Raises as `intake.submit`."""
        job_id = clock.new_id()
        watched = _watch(house, job_id)  # before the job is there: nothing that happens to it is missed
        try:
            job, _ = await submit(house, replace(order, job_id=job_id, priority="high"))
        except BaseException:
            _unwatch(house, watched)
            raise
        return cls(house, order, job, watched)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.leave()

    async def news(self) -> AsyncGenerator[News]:
        """What happens until the job has succeeded, each segment once. Raises the job's error where it did not."""
        told: set[tuple[str, int]] = set()
        behind = False  # segments were missed: the rest of them comes at the end, so that they stay in order

        def fresh(segments: list[Segment]) -> tuple[Segment, ...]:
            found = tuple(
                s for s in segments if (s.track, s.seq) not in told
            )  # an attempt begins with what another said
            told.update((s.track, s.seq) for s in found)
            return found

        while not self._ended:
            async for event in self._watched:
                if event.type == "segments" and not behind and (found := fresh(event.data["segments"])):
                    yield News(segments=found)
                elif event.type == "job":
                    self._ended = event.data["state"] in jobs.FINISHED
                    if self._ended:
                        break
                    if progress := event.data.get("progress"):
                        yield News(progress)
            if not self._ended:
                if not self._watched.lagged:
                    raise ServerStops()
                behind = True
                _unwatch(self._house, self._watched)
                self._watched = _watch(self._house, self.job.id)
                job = await self._house.database.read(lambda conn: jobs.get(conn, self.job.id))
                self._ended = job.state in jobs.FINISHED
        self.done = await self._house.database.read(self._outcome)
        if found := fresh(self.done.segments):
            yield News(segments=found)

    async def result(self) -> Done:
        """All of `news`, then what came of it."""
        async for _ in self.news():
            pass
        assert self.done is not None
        return self.done

    async def leave(self) -> None:
        """Waits until nothing is left that should not be; goes on also if whoever waits here is cancelled."""
        _unwatch(self._house, self._watched)
        task = asyncio.create_task(self._clear(), name=f"leave-{self.job.id}")
        _leaving.add(task)
        task.add_done_callback(_leaving.discard)
        await asyncio.shield(task)

    async def _clear(self) -> None:
        job, house = self.job, self._house
        if not self._ended:
            with suppress(Conflict, NotFound):  # it has just ended, or somebody has removed it
                house.runner.cancelled(
                    await house.database.write(lambda conn: transcribe.cancel(conn, job.id, job.client_id))
                )
        if not self._ended or not self._order.params.kept:
            await house.database.write(lambda conn: transcribe.forget(conn, job))
            assert job.call_id is not None
            await asyncio.to_thread(remove_call, house.folder, job.call_id)

    def _outcome(self, conn: Connection) -> Done:
        job = jobs.get(conn, self.job.id)
        if job.state != "succeeded" or job.result is None or job.call_id is None:
            raise Cancelled() if job.error is None or job.state == "cancelled" else CallreelError.of(job.error)
        call = calls.get_call(conn, job.call_id, job.client_id)
        transcript = transcripts.current_transcript(conn, job.call_id)
        assert transcript is not None
        return Done(job, call, transcript, transcripts.segments(conn, transcript.id))


async def unless_hung_up(request: Request, work: Awaitable[T]) -> T:
    """What `work` comes to; it is cancelled, and ClientDisconnect raised, once the client hangs up.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect()
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _watch(house: Services, job_id: str) -> Subscription:
    watched = house.events.subscribe(job_id, None)
    house.watchers.add(watched)
    return watched


def _unwatch(house: Services, watched: Subscription) -> None:
    house.watchers.discard(watched)
    watched.close()
