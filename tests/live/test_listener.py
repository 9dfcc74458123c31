"""Voice activity in its thread: every feed once, in order, whoever else misbehaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from callreel.audio.pcm import EMPTY, Pcm
from callreel.audio.vad import FRAME, Probabilities, Vad
from callreel.live.listener import GROUP_LIMIT, Listener

DEADLINE_S = 20.0


class Loop:
    """Stands for the event loop: runs deliveries at once, in the listener's thread, and waits for what they bring."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, int, int]] = []
        self.sizes: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        self._changed = threading.Condition()

    def deliver(self, call: Callable[[], None]) -> None:
        assert self.hold.wait(DEADLINE_S)
        with self._changed:
            before = len(self.heard)
            call()
            self.sizes.append(len(self.heard) - before)
            self._changed.notify_all()

    def of(self, name: Any) -> Callable[[Pcm, Probabilities], None]:
        return lambda pcm, probabilities: self.heard.append((name, len(pcm), len(probabilities)))

    def wait(self, n: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= n, DEADLINE_S)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def listener(loop: Loop) -> Iterator[Listener]:
    listener = Listener(loop.deliver)
    yield listener
    loop.hold.set()
    listener.shutdown()


def sound(n: int) -> Pcm:
    return np.zeros(n, np.int16)


def test_each_stream_hears_its_feeds_in_order_with_the_frames_they_complete(listener: Listener, loop: Loop) -> None:
    vads = [Vad(), Vad()]
    for i in range(6):
        listener.feed(vads[i % 2], sound(FRAME // 2 * (i % 2 + 1)), loop.of(i % 2))
    listener.feed(vads[0], EMPTY, loop.of(0))
    loop.wait(7)
    assert [entry[1:] for entry in loop.heard if entry[0] == 0] == [(256, 0), (256, 1), (256, 0), (0, 0)]
    assert [entry[1:] for entry in loop.heard if entry[0] == 1] == [(512, 1)] * 3


def test_a_crowd_is_delivered_in_groups_not_when_it_ends(listener: Listener, loop: Loop) -> None:
    vad = Vad()
    loop.hold.clear()
    for i in range(3 * GROUP_LIMIT):
        listener.feed(vad, sound(160), loop.of(i))
    loop.hold.set()
    loop.wait(3 * GROUP_LIMIT)
    assert [name for name, *_ in loop.heard] == list(range(3 * GROUP_LIMIT))
    assert max(loop.sizes) <= GROUP_LIMIT and len(loop.sizes) >= 3


def test_a_stream_that_raises_takes_no_other_along(listener: Listener, loop: Loop) -> None:
    def raises(pcm: Pcm, probabilities: Probabilities) -> None:
        raise RuntimeError("this stream is broken")

    vad = Vad()
    loop.hold.clear()
    for name in range(4):
        listener.feed(vad, sound(160), raises if name == 1 else loop.of(name))
    loop.hold.set()
    loop.wait(3)
    assert [name for name, *_ in loop.heard] == [0, 2, 3]


def test_shutdown_hears_what_came_before_it_and_ends_the_thread(loop: Loop) -> None:
    listener = Listener(loop.deliver)
    for i in range(100):
        listener.feed(Vad(), sound(160), loop.of(i))
    listener.shutdown()
    assert len(loop.heard) == 100
    assert not any(thread.name == "listener" for thread in threading.enumerate())
