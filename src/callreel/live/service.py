"""Live calls: opened by a protocol's adapter, stored as they are spoken, taken up again after a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection

from callreel import metrics
from callreel.audio.pcm import samples, seconds
from callreel.calls import store as calls
from callreel.engines.base import Capabilities
from callreel.errors import Conflict, InvalidInput, StorageUnavailable
from callreel.live.listener import Listener
from callreel.live.scheduler import Scheduler
from callreel.live.session import LiveOptions, Session
from callreel.live.stream import LiveStream, LoggedStream, OnSegments, on_call_clock
from callreel.live.tracklog import TrackLog, logged_samples, read_log
from callreel.storage.database import Database
from callreel.storage.events import Events
from callreel.storage.folders import DataFolder
from callreel.text import Segment
from callreel.transcripts import store as transcripts
from callreel.transcripts.collector import Collector
from callreel.transcripts.nouns import segment_noun

log = logging.getLogger("callreel.live")

MODE = "realtime_only"
REPLAY_BLOCK_S = 5.0
LOOK_BACK_S = 5.0  # audio before the seam that a resumed session hears, so that it knows how the first word began
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class LiveEngine:
    """What the live engine process said of itself, and what its transcripts must say."""

    name: str
    model: str
    capabilities: Capabilities
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class OpenStream:
    """A stream in the store together with the running one."""

    row: calls.Stream
    transcript_id: str
    stream: LoggedStream


class LiveService:
    """Opens, finishes and recovers live streams. Everything here runs in the event loop."""

    def __init__(
        self,
        *,
        database: Database,
        collector: Collector,
        events: Events,
        folder: DataFolder,
        log_: TrackLog,
        listener: Listener,
        scheduler: Scheduler,
        engine: LiveEngine,
        defaults: LiveOptions,
        buffer_s: float,
    ) -> None:
        self._database, self._collector, self._events = database, collector, events
        self._folder, self._log, self._listener = folder, log_, listener
        self._scheduler, self._buffer_s = scheduler, buffer_s
        self.engine = engine
        self.defaults = defaults  # options of a stream that asks for nothing; made from the settings

    async def open(
        self,
        *,
        client_id: str,
        protocol: str,
        options: LiveOptions,
        external_id: str | None,
        track: str,
        on_segments: OnSegments,
    ) -> OpenStream:
        """A new call with one track. `on_segments` gets segments in stream time.

        Raises InvalidInput for what the engine cannot do.
        """
        self._check(options)

        def create(conn: Connection) -> tuple[calls.Stream, transcripts.Transcript]:
            call = calls.create_call(conn, client_id=client_id, external_id=external_id, mode=MODE, state="live")
            calls.add_track(conn, call.id, track)
            row = calls.open_stream(
                conn, call_id=call.id, track=track, protocol=protocol, options=_kept_options(options)
            )
            transcript = transcripts.create_transcript(
                conn, call_id=call.id, pass_="live", engine=self.engine.name, model=self.engine.model
            )
            return row, transcript

        row, transcript = await self._database.write(create)
        session = Session(options, track=track, epoch=row.epoch)
        store = self._storing(row, transcript.id)

        def both(segments: list[Segment]) -> None:
            store(segments)
            on_segments(segments)

        stream = LoggedStream(
            row.call_id,
            row.id,
            session,
            self._log,
            self._listener,
            self._scheduler,
            both,
            buffer_s=self._buffer_s,
        )
        metrics.live_streams.inc()
        self._publish_state(row, "live")
        return OpenStream(row, transcript.id, stream)

    def _check(self, options: LiveOptions) -> None:
        can = self.engine.capabilities
        if options.task == "translate" and not can.translate:
            raise InvalidInput("The live engine does not translate.", field="task")
        if options.language is not None and can.languages and options.language not in can.languages:
            known = f"It has: {', '.join(can.languages)}"
            raise InvalidInput(f"The live engine has no language {options.language!r}.", hint=known, field="language")

    async def finish(self, opened: OpenStream) -> None:
        """Decode what is left, store it, close the call. Safe to call however the connection ended."""
        try:
            await opened.stream.finish()
            await self._close(opened.row, opened.transcript_id, opened.stream, opened.stream.accepted)
        finally:
            opened.stream.close()
            metrics.live_streams.dec()

    async def is_up(self, *, within_s: float) -> bool:
        """Whether the live engine answers; streams that are open meanwhile lose nothing, they wait."""
        return await self._scheduler.engine_is_up(within_s=within_s)

    async def stored(self) -> None:
        """Every segment published before this call is in the database."""
        await self._collector.flush()

    async def left_open(self) -> list[calls.Stream]:
        """The streams that a dead server left open; asked before this one opens any."""
        return await self._database.read(calls.open_streams)

    async def recover(self, left: Sequence[calls.Stream]) -> None:
        """Take up the streams that were `left_open`: their logged audio, from what is stored on."""
        for stream in left:
            try:
                await self._recover(stream)
            except Exception:  # one that cannot be taken up must not keep the others waiting
                log.exception("call %s: stream %s cannot be taken up", stream.call_id, stream.id)

    async def _recover(self, left: calls.Stream) -> None:
        def lease(conn: Connection) -> tuple[calls.Stream, transcripts.Transcript | None, Segment | None]:
            row = calls.reopen_stream(conn, left.id)
            transcript = transcripts.live_transcript(conn, row.call_id)
            last = transcripts.last_segment(conn, transcript.id, row.track) if transcript else None
            return row, transcript, last

        row, transcript, last = await self._database.write(lease)
        if transcript is None:
            raise Conflict("A stream without a live transcript: the database was changed by hand.", stream_id=row.id)
        done = samples(max(0.0, last.end - row.offset_s)) if last else 0
        at = max(0, done - samples(LOOK_BACK_S))
        seq = last.seq + 1 if last else 0
        before = [word.shifted(-row.offset_s) for word in last.words] if last else []
        session = Session(
            self._options_of(row.options),
            track=row.track,
            epoch=row.epoch,
            seq=seq,
            start=done,
            at=at,
            before=before,
        )
        stream = LiveStream(row.id, session, self._listener, self._scheduler, self._storing(row, transcript.id))
        total = logged_samples(self._folder.live, row.call_id, row.id)
        log.info("call %s: taking up %.1f s of %.1f s", row.call_id, seconds(total - done), seconds(total))
        try:
            for block in read_log(self._folder.live, row.call_id, row.id, at, samples(REPLAY_BLOCK_S)):
                stream.take(block)
                await stream.settled()  # one block at a time: live streams need the listener and the engine too
            await stream.finish()
            await self._close(row, transcript.id, stream, total)
        finally:
            stream.close()

    async def _close(self, row: calls.Stream, transcript_id: str, stream: LiveStream, accepted: int) -> None:
        await self._collector.flush(transcript_id)
        language = stream.session.language

        def close(conn: Connection) -> None:
            calls.close_stream(conn, row.id, accepted)
            transcripts.finish_transcript(
                conn, transcript_id, state="done", language=language, warnings=self.engine.warnings
            )
            duration_s = round(row.offset_s + seconds(accepted), 3)
            calls.finish_call(conn, row.call_id, state="done", duration_s=duration_s, language=language)

        await self._surely(close)
        self._publish_state(row, "done")

    async def _surely(self, work: Callable[[Connection], None]) -> None:
        """Write, however long the database is away: the stream's audio is safe meanwhile, its end must not be lost."""
        while True:
            try:
                return await self._database.write(work)
            except StorageUnavailable as error:
                log.error("a finished stream waits for the database: %s", error)
                await asyncio.sleep(RETRY_S)

    def _storing(self, row: calls.Stream, transcript_id: str) -> OnSegments:
        """What every segment goes through: the call's clock, the watchers, and the store once it is completed."""

        def take(segments: list[Segment]) -> None:
            placed = [on_call_clock(segment, row.offset_s) for segment in segments]
            for segment in placed:
                self._events.publish(row.call_id, "segment", segment_noun(transcript_id, segment))
            if completed := [segment for segment in placed if segment.completed]:
                self._collector.put(transcript_id, completed)

        return take

    def _publish_state(self, row: calls.Stream, state: Literal["live", "done"]) -> None:
        self._events.publish(row.call_id, "call", {"id": row.call_id, "state": state})

    def _options_of(self, kept: dict[str, Any]) -> LiveOptions:
        return replace(self.defaults, **kept)


def _kept_options(options: LiveOptions) -> dict[str, Any]:
    """What a stream chose for itself; the rest comes from the settings, also after a restart."""
    return {name: getattr(options, name) for name in ("language", "task", "prompt", "hotwords")}
