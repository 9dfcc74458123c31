"""The voice activity of all live streams, in one thread: it must not take turns with the sockets."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial

from callreel.audio.pcm import Pcm
from callreel.audio.vad import Probabilities, Vad

Heard = Callable[[Pcm, Probabilities], None]


class Listener:
    """`feed` from the event loop; `heard` is called back there, for each stream in the order of its feeds.

    `deliver` runs a function in the event loop (`loop.call_soon_threadsafe`); one delivery carries all that is ready.
    """

    def __init__(self, deliver: Callable[[Callable[[], None]], object]) -> None:
        self._deliver = deliver
        self._queue: queue.SimpleQueue[tuple[Vad, Pcm, Heard] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def feed(self, vad: Vad, pcm: Pcm, heard: Heard) -> None:
        self._queue.put((vad, pcm, heard))

    def shutdown(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            ready: list[Callable[[], None]] = []
            while item is not None:
                vad, pcm, heard = item
                ready.append(partial(heard, pcm, vad.feed(pcm)))
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                self._queue.put(None)  # the end came with the group: seen again by the outer loop
            self._deliver(partial(_call_all, ready))


def _call_all(ready: list[Callable[[], None]]) -> None:
    for call in ready:
        call()
