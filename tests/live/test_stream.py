"""One connection's way from accepted audio to segments, with a real log, listener and engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from callreel.audio.pcm import Pcm, samples
from callreel.clock import new_id
from callreel.engines.base import Decoded, DecodeOptions, Engine, Window
from callreel.engines.remote import AsyncRemoteEngine
from callreel.live.listener import Listener
from callreel.live.scheduler import Scheduler
from callreel.live.session import LiveOptions, Session
from callreel.live.stream import LiveStream, LoggedStream, on_call_clock
from callreel.live.tracklog import TrackLog, logged_samples
from callreel.measure.harness import samples_of
from callreel.text import Segment, Word

DEADLINE_S = 30.0
CALL = "0198d2a0-0000-7000-8000-00000000000a"


class InProcess:
    """A blocking engine behind the interface of a remote one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def decode(self, windows: list[Window], options: DecodeOptions) -> list[Decoded]:
        return await asyncio.to_thread(self._engine.decode, windows, options)


@dataclass
class Room:
    log: TrackLog
    listener: Listener
    scheduler: Scheduler
    root: Path
    segments: list[Segment] = field(default_factory=list)

    def session(self) -> Session:
        return Session(LiveOptions(language="en", max_window_s=10.0), track="main")

    def stream(self, buffer_s: float = 30.0, session: Session | None = None) -> LoggedStream:
        return LoggedStream(
            CALL,
            new_id(),
            session or self.session(),
            self.log,
            self.listener,
            self.scheduler,
            self.segments.extend,
            buffer_s=buffer_s,
        )

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.completed)


@asynccontextmanager
async def room(root: Path, engine: Engine) -> AsyncIterator[Room]:
    loop = asyncio.get_running_loop()
    log = TrackLog(root, deliver=loop.call_soon_threadsafe, on_trouble=lambda _: None)
    listener = Listener(loop.call_soon_threadsafe)
    scheduler = Scheduler(cast(AsyncRemoteEngine, InProcess(engine)), slots=2, max_batch=4, min_window_s=0.0)
    scheduler.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield Room(log, listener, scheduler, root)
    finally:
        await scheduler.stop()
        await asyncio.to_thread(listener.shutdown)
        await asyncio.to_thread(log.shutdown)


@pytest.fixture
def short(toy_audio: Path) -> Pcm:
    return samples_of(toy_audio / "en_short.wav")


def blocks(pcm: Pcm, n: int = 4096) -> list[Pcm]:
    return [pcm[at : at + n] for at in range(0, len(pcm), n)]


def test_when_finish_returns_all_is_logged_heard_and_decoded(tmp_path: Path, toy_engine: Engine, short: Pcm) -> None:
    async def run() -> Room:
        async with room(tmp_path, toy_engine) as r:
            stream = r.stream()
            for block in blocks(short):
                await stream.feed(block)
            await stream.finish()
            assert stream.accepted == len(short) == logged_samples(tmp_path, CALL, stream.id)
            assert stream.session.idle
            stream.close()
            return r

    r = asyncio.run(run())
    assert r.text == "hello please transfer my account"
    assert [s.seq for s in r.segments if s.completed] == list(range(len([s for s in r.segments if s.completed])))


def test_complete_says_what_was_said_and_the_stream_goes_on(tmp_path: Path, toy_engine: Engine, short: Pcm) -> None:
    async def run() -> tuple[str, str]:
        async with room(tmp_path, toy_engine) as r:
            stream = r.stream()
            await stream.feed(short[: samples(2.5)])
            while stream.accepted < samples(2.5):  # noqa: ASYNC110 - completing comes after it
                await asyncio.sleep(0)
            stream.complete()
            while not r.text:  # noqa: ASYNC110
                await asyncio.sleep(0)
            first = r.text
            await stream.feed(short)
            await stream.finish()
            stream.close()
            return first, r.text

    first, both = asyncio.run(run())
    assert first == "hello please transfer my account" and both == f"{first} {first}"


def test_a_feeder_waits_while_the_disk_is_behind(tmp_path: Path, toy_engine: Engine) -> None:
    async def run() -> None:
        async with room(tmp_path, toy_engine) as r:
            (tmp_path / CALL).write_text("a file where the folder should be")  # the disk refuses
            stream = r.stream(buffer_s=1.0)
            second = np.zeros(samples(1.0), np.int16)
            await stream.feed(second)  # fills the buffer, and no more
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await stream.feed(second)
            assert stream.accepted == 0
            (tmp_path / CALL).unlink()  # it takes again
            await stream.feed(second)
            assert stream.accepted >= samples(2.0)
            await stream.finish()
            assert stream.accepted == samples(3.0)
            stream.close()

    asyncio.run(run())


def test_settled_waits_for_what_was_taken(tmp_path: Path, toy_engine: Engine, short: Pcm) -> None:
    async def run() -> None:
        async with room(tmp_path, toy_engine) as r:
            stream = LiveStream(new_id(), r.session(), r.listener, r.scheduler, r.segments.extend)
            for block in blocks(short, samples(1.0)):
                stream.take(block)
                await stream.settled()
                assert stream.session.received % samples(1.0) == 0 or stream.session.received == len(short)
                assert not stream.session.wants()
            await stream.finish()
            stream.close()
            assert r.text == "hello please transfer my account"

    asyncio.run(run())


def test_a_broken_session_ends_its_stream_and_no_other(tmp_path: Path, toy_engine: Engine, short: Pcm) -> None:
    class Broken(Session):
        def feed(self, pcm: Pcm, probabilities: Any) -> None:
            raise RuntimeError("a bug of ours")

    async def run() -> None:
        async with room(tmp_path, toy_engine) as r:
            bad = r.stream(session=Broken(LiveOptions(language="en"), track="main"))
            good = r.stream()
            for block in blocks(short):
                await bad.feed(block)
                await good.feed(block)
            with pytest.raises(RuntimeError, match="a bug of ours"):
                await bad.finish()
            assert logged_samples(tmp_path, CALL, bad.id) == len(short)  # its audio is kept all the same
            await good.finish()
            assert r.text == "hello please transfer my account"

    asyncio.run(run())


def test_a_segment_on_the_calls_clock_moves_with_its_words() -> None:
    segment = Segment("main", 0, 1.0, 2.0, "hi", (Word(" hi", 1.1, 1.9),))
    moved = on_call_clock(segment, 60.5)
    assert (moved.start, moved.end) == (61.5, 62.5)
    assert [(word.start, word.end) for word in moved.words] == [(61.6, 62.4)]
    assert on_call_clock(segment, 0.0) == segment
