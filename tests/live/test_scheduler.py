"""Who is decoded next and together with whom, against an engine that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from callreel.audio.pcm import samples
from callreel.engines.base import Decoded, DecodeOptions, Window
from callreel.engines.remote import AsyncRemoteEngine
from callreel.errors import CallreelError, EngineCrashed, EngineUnavailable
from callreel.live import scheduler as module
from callreel.live.scheduler import Scheduler
from callreel.live.session import Session, Work

DEADLINE_S = 20.0


@dataclass
class Wish:
    """A session that wants each of `wants` once, in that order; True is a final decode."""

    wants_: list[bool]
    window: float = 1.0
    options: DecodeOptions = field(default_factory=lambda: DecodeOptions("en"))
    out: bool = False
    fails: str = ""

    def wants(self) -> bool | None:
        if self.fails == "wants":
            raise RuntimeError("wants is broken")
        return None if self.out or not self.wants_ else self.wants_[0]

    def window_s(self) -> float:
        return self.window

    def decode_options(self) -> DecodeOptions:
        return self.options

    def take(self) -> Work:
        if self.fails == "take":
            raise RuntimeError("take is broken")
        self.out = True
        pcm = np.zeros(samples(self.window), np.int16)
        return Work(Window(pcm), self.options, self.wants_[0], 0, len(pcm), cast(Any, None))


@dataclass(eq=False)
class Speaker:
    """A member of the scheduler that keeps what came back."""

    name: str
    wish: Wish
    ready_at: float = 0.0
    got: list[Decoded | None] = field(default_factory=list)
    error: Exception | None = None

    @property
    def session(self) -> Session:
        return cast(Session, self.wish)

    def next_work(self) -> Work:
        return self.wish.take()

    def decoded(self, work: Work, result: Decoded | None) -> None:
        if self.wish.fails == "decoded":
            raise RuntimeError("decoded is broken")
        self.wish.out = False
        self.wish.wants_.pop(0)
        self.got.append(result)

    def broken(self, error: Exception) -> None:
        self.error = error


class Engine:
    """Notes each batch, by the lengths of its windows in seconds, and answers with the script's next answer."""

    def __init__(self, *script: CallreelError | Exception) -> None:
        self.batches: list[list[float]] = []
        self.options: list[DecodeOptions] = []
        self._script = list(script)

    async def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        self.batches.append([len(window.pcm) / 16000 for window in windows])
        self.options.append(options)
        await asyncio.sleep(0)
        if self._script:
            raise self._script.pop(0)
        return [Decoded((), "en") for _ in windows]


def work_off(engine: Any, *speakers: Speaker, max_batch: int = 4, slots: int = 1, min_window_s: float = 0.0) -> None:
    """Schedule the speakers until each has all it wants, or is broken."""

    async def run() -> None:
        scheduler = Scheduler(
            cast(AsyncRemoteEngine, engine), slots=slots, max_batch=max_batch, min_window_s=min_window_s
        )
        for speaker in speakers:
            scheduler.add(speaker)
        scheduler.start()
        async with asyncio.timeout(DEADLINE_S):
            while any(speaker.wish.wants_ and speaker.error is None for speaker in speakers):
                await asyncio.sleep(0)
                scheduler.wake()
        await scheduler.stop()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)


def test_finals_go_before_partials_and_the_longest_waiting_first() -> None:
    engine = Engine()
    speakers = [
        Speaker("partial, long ago", Wish([False], 1.0), 1.0),
        Speaker("final, late", Wish([True], 2.0), 9.0),
        Speaker("partial, later", Wish([False], 3.0), 2.0),
        Speaker("final, early", Wish([True], 4.0), 3.0),
    ]
    work_off(engine, *speakers, max_batch=1)
    assert engine.batches == [[4.0], [2.0], [1.0], [3.0]]


def test_a_batch_holds_only_what_is_alike() -> None:
    engine = Engine()
    swahili = DecodeOptions("sw")
    speakers = [
        Speaker("first", Wish([True], 4.5), 1.0),
        Speaker("another language", Wish([True], 4.6, swahili), 2.0),
        Speaker("the same class", Wish([True], 4.9), 3.0),
        Speaker("longer", Wish([True], 5.5), 4.0),
        Speaker("partial", Wish([False], 4.7), 0.0),
        Speaker("shorter", Wish([True], 3.9), 5.0),
    ]
    work_off(engine, *speakers)
    assert engine.batches == [[4.5, 4.9], [4.6], [5.5], [3.9], [4.7]]
    assert [options.language for options in engine.options] == ["en", "sw", "en", "en", "en"]


def test_windows_below_the_engines_shortest_are_of_one_class_and_batches_have_a_limit() -> None:
    engine = Engine()
    speakers = [Speaker(str(i), Wish([True], 0.5 + i), float(i)) for i in range(5)]
    work_off(engine, *speakers, max_batch=3, min_window_s=5.0)
    assert engine.batches == [[0.5, 1.5, 2.5], [3.5, 4.5]]


def test_one_stream_has_one_decode_at_a_time() -> None:
    engine = Engine()
    speaker = Speaker("one", Wish([False, True, True], 1.0))
    work_off(engine, speaker, slots=3)
    assert engine.batches == [[1.0]] * 3 and len(speaker.got) == 3


def test_a_transient_error_is_waited_out_by_a_final_and_drops_a_partial() -> None:
    engine = Engine(EngineUnavailable(), EngineUnavailable())
    final = Speaker("final", Wish([True]))
    work_off(engine, final)
    assert final.got == [Decoded((), "en")] and len(engine.batches) == 3
    engine = Engine(EngineUnavailable())
    partial = Speaker("partial", Wish([False]))
    work_off(engine, partial)
    assert partial.got == [None] and len(engine.batches) == 1


def test_a_batch_that_brings_the_engine_down_is_tried_one_by_one() -> None:
    class Picky(Engine):
        async def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
            decoded = await super().decode(windows, options)
            if any(len(window.pcm) == samples(1.5) for window in windows):
                raise EngineCrashed()
            return decoded

    engine = Picky()
    speakers = [Speaker(str(i), Wish([True], 1.0 + i / 4), float(i)) for i in range(4)]
    work_off(engine, *speakers)
    assert engine.batches == [[1.0, 1.25, 1.5, 1.75], [1.0], [1.25], [1.5], [1.75]]
    assert [speaker.got == [None] for speaker in speakers] == [False, False, True, False]


def test_answers_that_do_not_match_the_windows_are_not_given_to_the_wrong_stream() -> None:
    class Short(Engine):
        async def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
            return (await super().decode(windows, options))[:1]

    engine = Short()
    speakers = [Speaker(str(i), Wish([True]), float(i)) for i in range(2)]
    work_off(engine, *speakers)
    assert [len(batch) for batch in engine.batches] == [2, 1, 1]
    assert all(speaker.got == [Decoded((), "en")] for speaker in speakers)


@pytest.mark.parametrize("where", ["wants", "take", "decoded"])
def test_a_broken_stream_is_taken_out_and_the_others_go_on(where: str) -> None:
    engine = Engine()
    bad = Speaker("bad", Wish([True], fails=where), 0.0)
    good = [Speaker(str(i), Wish([True, False, True]), float(i)) for i in range(1, 4)]
    work_off(engine, bad, *good, max_batch=2)
    assert str(bad.error) == f"{where} is broken"
    assert all(len(speaker.got) == 3 and speaker.error is None for speaker in good)


def test_an_engine_that_raises_what_it_should_not_costs_one_decode() -> None:
    engine = Engine(RuntimeError("a bug"))
    speaker = Speaker("one", Wish([True, True]))
    work_off(engine, speaker)
    assert speaker.got == [None, Decoded((), "en")]


def test_who_has_left_is_not_decoded() -> None:
    async def run() -> None:
        engine = Engine()
        scheduler = Scheduler(cast(AsyncRemoteEngine, engine), slots=1, max_batch=1, min_window_s=0.0)
        gone, there = Speaker("gone", Wish([True], 1.0)), Speaker("there", Wish([True], 2.0))
        scheduler.add(gone)
        scheduler.remove(gone)
        scheduler.add(there)
        scheduler.start()
        async with asyncio.timeout(DEADLINE_S):
            while not there.got:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await scheduler.stop()
        assert engine.batches == [[2.0]] and gone.got == []

    asyncio.run(run())
