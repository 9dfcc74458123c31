"""One scheduler a model, for all streams: who is decoded next, and together with whom."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from callreel import metrics
from callreel.clock import monotonic
from callreel.engines.base import Decoded, DecodeOptions
from callreel.engines.remote import AsyncRemoteEngine
from callreel.errors import CallreelError, EngineCrashed
from callreel.live.session import Session, Work

log = logging.getLogger("callreel.live")

# A batch is padded to its longest window, so only windows of about one length go together.
WINDOW_CLASSES_S = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)
RETRY_S = 0.5

T = TypeVar("T")


class Member(Protocol):
    """A stream, as the scheduler sees it."""

    session: Session
    ready_at: float  # since when its session wants a decode, monotonic seconds

    def next_work(self) -> Work:
        """The decode that its session wants, taken."""
        ...

    def decoded(self, work: Work, result: Decoded | None) -> None: ...

    def broken(self, error: Exception) -> None:
        """It raised what it never should, and is scheduled no more; the others go on."""
        ...


@dataclass(frozen=True, slots=True)
class _Kind:
    """What decodes of one batch have in common."""

    final: bool
    options: DecodeOptions
    window_class: int


def _give(work: Work, result: Decoded | None, member: Member) -> None:
    member.decoded(work, result)


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

    async def engine_is_up(self, *, within_s: float) -> bool:
        return await self._engine.is_up(within_s=within_s)

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
            self._wake.clear()
            batch = self._next_batch()
            if not batch:
                await self._wake.wait()
                continue
            await self._decode(batch)

    def _next_batch(self) -> list[tuple[Member, Work]]:
        """The most urgent member, and others of its kind, options and window class, most urgent first."""
        wanting = [(member, kind) for member in tuple(self._members) if (kind := self._asked(member, self._kind))]
        wanting.sort(key=lambda entry: (not entry[1].final, entry[0].ready_at))
        alike = [member for member, kind in wanting if kind == wanting[0][1]][: self._max_batch]
        return [(member, work) for member in alike if (work := self._asked(member, lambda m: m.next_work()))]

    def _kind(self, member: Member) -> _Kind | None:
        session = member.session
        final = session.wants()
        if final is None:
            return None
        window_class = bisect_left(WINDOW_CLASSES_S, max(self._min_window_s, session.window_s()))
        return _Kind(final, session.decode_options(), window_class)

    def _asked(self, member: Member, question: Callable[[Member], T]) -> T | None:
        """What `member` answers. A mistake of ours in one stream must not end the decodes of all."""
        try:
            return question(member)
        except Exception as error:
            log.exception("a stream is broken, the others go on")
            self.remove(member)
            member.broken(error)
            self.wake()  # the place in the batch that it had is another's
            return None

    async def _decode(self, taken: list[tuple[Member, Work]]) -> None:
        works = [work for _, work in taken]
        kind = "final" if works[0].final else "partial"
        began = monotonic()
        results = await self._results(works)
        metrics.live_decode.labels(kind).observe(monotonic() - began)
        metrics.live_windows.labels(kind).inc(len(works))
        for (member, work), result in zip(taken, results, strict=True):
            self._asked(member, partial(_give, work, result))

    async def _results(self, works: list[Work]) -> list[Decoded | None]:
        """What the engine says; None for each window that it gave up. A final waits until the engine is back."""
        while True:
            try:
                decoded = await self._engine.decode([work.window for work in works], works[0].options)
                if len(decoded) != len(works):
                    raise EngineCrashed(f"{len(decoded)} answers came for {len(works)} windows")
                return [*decoded]
            except CallreelError as error:
                log.error("decode of %d windows failed: %s: %s", len(works), error.code, error)
                if not error.transient and len(works) > 1:
                    # A window that brings the engine down must not take its neighbours along.
                    return [result for work in works for result in await self._results([work])]
                if not error.transient or not works[0].final:
                    return [None] * len(works)
                await asyncio.sleep(RETRY_S)
            except Exception:  # a mistake of ours: it may cost these windows, not the scheduler
                log.exception("decode of %d windows failed", len(works))
                return [None] * len(works)
