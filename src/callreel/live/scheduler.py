"""One scheduler a model, for all streams: who is decoded next, and together with whom."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from typing import Protocol

from callreel import metrics
from callreel.clock import monotonic
from callreel.engines.base import Decoded
from callreel.engines.remote import AsyncRemoteEngine
from callreel.errors import CallreelError
from callreel.live.session import Session, Work

log = logging.getLogger("callreel.live")

# A batch is padded to its longest window, so only windows of about one length go together.
WINDOW_CLASSES_S = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)
RETRY_S = 0.5


class Member(Protocol):
    """A stream, as the scheduler sees it."""

    session: Session
    ready_at: float  # since when its session wants a decode, monotonic seconds

    def decoded(self, work: Work, result: Decoded | None) -> None: ...


class Scheduler:
    """Finals before partials, and of each kind the one that waits longest: all final deadlines are equally far from
    their endpoints, so that is earliest deadline first. A partial is cut from the newest audio when its turn comes,
    so none is ever stale; under load its turn comes later, which lengthens hops and drops nothing.
    """

    def __init__(self, engine: AsyncRemoteEngine, *, slots: int, max_batch: int, min_window_s: float) -> None:
        self._engine, self._slots, self._max_batch = engine, slots, max_batch
        self._min_window_s = min_window_s
        self._members: set[Member] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"scheduler-{i}") for i in range(self._slots)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, member: Member) -> None:
        self._members.add(member)
        self.wake()

    def remove(self, member: Member) -> None:
        self._members.discard(member)

    def wake(self) -> None:
        """Some session may want a decode now."""
        self._wake.set()

    async def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            taken = [(member, member.session.take()) for member in batch]
            await self._decode(taken)

    def _next_batch(self) -> list[Member]:
        """The most urgent member, and others of its kind, options and window class, most urgent first."""
        wanting = [(not final, m.ready_at, m) for m in self._members if (final := m.session.wants()) is not None]
        if not wanting:
            return []
        wanting.sort(key=lambda entry: entry[:2])
        kind, _, first = wanting[0]
        alike = first.session.decode_options(), self._class(first.session)
        members = (m for other, _, m in wanting if other == kind)
        same = (m for m in members if (m.session.decode_options(), self._class(m.session)) == alike)
        return [m for m, _ in zip(same, range(self._max_batch), strict=False)]

    def _class(self, session: Session) -> int:
        return bisect_left(WINDOW_CLASSES_S, max(self._min_window_s, session.window_s()))

    async def _decode(self, taken: list[tuple[Member, Work]]) -> None:
        works = [work for _, work in taken]
        kind = "final" if works[0].final else "partial"
        began = monotonic()
        results = await self._results(works)
        metrics.live_decode.labels(kind).observe(monotonic() - began)
        metrics.live_windows.labels(kind).inc(len(works))
        for (member, work), result in zip(taken, results, strict=True):
            member.decoded(work, result)

    async def _results(self, works: list[Work]) -> list[Decoded | None]:
        """What the engine says; None for each window that it gave up. A final waits until the engine is back."""
        while True:
            try:
                return [*await self._engine.decode([work.window for work in works], works[0].options)]
            except CallreelError as error:
                log.error("decode of %d windows failed: %s: %s", len(works), error.code, error)
                if not error.transient and len(works) > 1:
                    # A window that brings the engine down must not take its neighbours along.
                    return [result for work in works for result in await self._results([work])]
                if not error.transient or not works[0].final:
                    return [None] * len(works)
                await asyncio.sleep(RETRY_S)
