"""One live connection's way through the house: accepted audio in, segments out, to whoever listens and to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from callreel import metrics
from callreel.audio.pcm import EMPTY, Pcm, samples, seconds
from callreel.audio.vad import Probabilities, Vad
from callreel.clock import monotonic
from callreel.engines.base import Decoded
from callreel.live.listener import Listener
from callreel.live.scheduler import Scheduler
from callreel.live.session import Session, Work
from callreel.live.tracklog import TrackLog
from callreel.text import Segment

OnSegments = Callable[[list[Segment]], None]


class LiveStream:
    """Use from the event loop: `take(pcm)` for audio that is logged, `await finish()` at the end.

    `on_segments` gets each decode's segments in stream time: completed ones, then at most one partial.
    """

    def __init__(
        self, stream_id: str, session: Session, listener: Listener, scheduler: Scheduler, on_segments: OnSegments
    ) -> None:
        self.id = stream_id
        self.session = session
        self.ready_at = 0.0
        self.accepted = 0  # samples in the track log, on the stream's clock
        self._vad = Vad()
        self._listener, self._scheduler, self._on_segments = listener, scheduler, on_segments
        self._moved = asyncio.Event()  # something was accepted, heard or decoded since it was cleared
        self._unheard = 0  # feeds that the listener still has
        self._out = False  # a decode is with the engine
        self._broken: Exception | None = None
        scheduler.add(self)

    def take(self, pcm: Pcm) -> None:
        """Audio that is safe in the log: let it be heard."""
        self._listen(pcm, self._heard)

    def complete(self) -> None:
        """Nothing comes for now: what was said so far is a whole utterance, in its place after what is being heard."""
        self._listen(EMPTY, self._flushed)

    async def finish(self) -> None:
        """Everything accepted is in segments when this returns."""
        self.complete()
        while self._unheard or not self.session.idle:
            await self._change()

    async def settled(self) -> None:
        """Wait until what was taken is heard and no utterance waits: for audio that comes faster than it is spoken."""
        while self._unheard or self._out or self.session.wants():
            await self._change()

    def broken(self, error: Exception) -> None:
        """Our own mistake: whoever waits for this stream raises `error`; its log keeps the audio."""
        self._broken = error
        self._moved.set()

    def close(self) -> None:
        self._scheduler.remove(self)

    def next_work(self) -> Work:
        """The decode that the session wants, for the engine."""
        work = self.session.take()
        self._out = True
        return work

    def decoded(self, work: Work, result: Decoded | None) -> None:
        """A decode is back from the engine (None: it gave the window up)."""
        self._out = False
        if work.final:
            metrics.live_final_wait.observe(monotonic() - self.ready_at)
        segments = self.session.decoded(work, result)
        if segments:
            self._on_segments(segments)
        self._advanced()

    async def _change(self) -> None:
        self._moved.clear()
        if self._broken is None:
            await self._moved.wait()
        if self._broken is not None:
            raise self._broken

    def _listen(self, pcm: Pcm, then: Callable[[Pcm, Probabilities], None]) -> None:
        self._unheard += 1
        self._listener.feed(self._vad, pcm, then)

    def _heard(self, pcm: Pcm, probabilities: Probabilities) -> None:
        self._told(lambda: self.session.feed(pcm, probabilities))

    def _flushed(self, pcm: Pcm, probabilities: Probabilities) -> None:
        self._told(self.session.flush)

    def _told(self, tell: Callable[[], None]) -> None:
        self._unheard -= 1
        wanted = self.session.wants()
        try:
            tell()
        except Exception as error:
            self._scheduler.remove(self)
            self.broken(error)
            raise
        self._advanced(wanted)

    def _advanced(self, wanted: bool | None = None) -> None:
        """Something happened; `wanted` is what the session wanted before it."""
        self._moved.set()
        wants = self.session.wants()
        if wants is not None:
            if wants is not wanted:
                self.ready_at = monotonic()
            self._scheduler.wake()


class LoggedStream(LiveStream):
    """A stream whose audio comes from a socket, by `await feed(pcm)`, and goes through the track log first."""

    def __init__(
        self,
        call_id: str,
        stream_id: str,
        session: Session,
        log: TrackLog,
        listener: Listener,
        scheduler: Scheduler,
        on_segments: OnSegments,
        *,
        buffer_s: float,
    ) -> None:
        super().__init__(stream_id, session, listener, scheduler, on_segments)
        self._log, self._limit = log, samples(buffer_s)
        self._received = 0
        log.open(call_id, stream_id, self._accepted)

    async def feed(self, pcm: Pcm) -> None:
        """Take audio; waits while the disk is more than `buffer_s` behind, so that the socket is not read either."""
        self._received += len(pcm)
        self._log.append(self.id, pcm)
        while self._received - self.accepted > self._limit:
            await self._change()

    async def finish(self) -> None:
        await asyncio.wrap_future(self._log.close(self.id))
        await super().finish()

    def _accepted(self, offset: int, pcm: Pcm) -> None:
        self.accepted = offset
        metrics.live_audio.inc(seconds(len(pcm)))
        self.take(pcm)


def on_call_clock(segment: Segment, offset_s: float) -> Segment:
    """A segment in stream time, on the clock of its call."""
    return replace(
        segment,
        start=round(segment.start + offset_s, 3),
        end=round(segment.end + offset_s, 3),
        words=tuple(word.shifted(offset_s) for word in segment.words),
    )
