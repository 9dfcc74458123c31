"""What a process has used: CPU seconds shared among the calls that ran meanwhile, and the most memory it had."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


def peak_rss_bytes() -> int:
    """The most memory this process ever had in RAM, bytes.

    Not `ru_maxrss` where there is a better source: Linux hands that down from the parent, through fork and exec.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


class Bill:
    """What one call cost, once it is over."""

    __slots__ = ("cpu_s",)

    def __init__(self) -> None:
        self.cpu_s = 0.0


class Meter:
    """Splits the CPU seconds of this process evenly among the calls in flight.

    What is used while there is none (reading a request, writing an answer) goes to the next, so that the sum over all
    calls is what was used from the meter's making on. `clock` says what was used so far, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: set[Bill] = set()
        self._at = clock()
        self._unpaid_s = 0.0

    @contextmanager
    def running(self) -> Iterator[Bill]:
        """One call, from its begin to its end; its bill is final when the context ends."""
        bill = Bill()
        with self._lock:
            self._share()
            bill.cpu_s, self._unpaid_s = self._unpaid_s, 0.0
            self._running.add(bill)
        try:
            yield bill
        finally:
            with self._lock:
                self._share()
                self._running.remove(bill)

    def _share(self) -> None:
        now = self._clock()
        used, self._at = now - self._at, now
        for bill in self._running:
            bill.cpu_s += used / len(self._running)
        if not self._running:
            self._unpaid_s += used
