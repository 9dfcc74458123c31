"""The voice activity of all live streams, in one thread: it must not take turns with the sockets."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from callreel.audio.pcm import Pcm
from callreel.audio.vad import Probabilities, Vad

log = logging.getLogger("callreel.live")

Heard = Callable[[Pcm, Probabilities], None]

GROUP_LIMIT = 64  # feeds a delivery: those that are ready do not wait for an end of those that come


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
        ended = False
        while not ended:
            group = [self._queue.get()]
            group += [self._queue.get_nowait() for _ in range(min(self._queue.qsize(), GROUP_LIMIT - 1))]
            ended = None in group
            ready = [_listen(*item) for item in group if item is not None]
            if ready:
                self._deliver(partial(_call_all, ready))


def _listen(vad: Vad, pcm: Pcm, heard: Heard) -> Callable[[], None]:
    return partial(heard, pcm, vad.feed(pcm))


def _call_all(ready: list[Callable[[], None]]) -> None:
    for call in ready:
        try:
            call()
        except Exception:  # one stream's trouble must not take the others' audio along
            log.exception("a stream could not take what was heard")
