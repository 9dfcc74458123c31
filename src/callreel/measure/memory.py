"""The most memory that processes had while something was going on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

LOOK_EVERY_S = 0.05


def peak_of(process: psutil.Process) -> int:
    """Resident bytes at most since the process began its program; where the system does not keep that, now."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return now_of(process)


def now_of(process: psutil.Process) -> int:
    """Resident bytes now."""
    return int(process.memory_info().rss)


class MemoryWatch:
    """Looks again and again, in a thread, at the processes that `processes()` names.

    `peaks` holds the most `measure` ever gave of each name, also of those that came and went.
    """

    def __init__(
        self,
        processes: Callable[[], Mapping[str, psutil.Process]],
        *,
        measure: Callable[[psutil.Process], int] = peak_of,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._processes, self._measure, self._every_s = processes, measure, every_s
        self.peaks: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def together(self) -> int:
        """The sum of all peaks: no less than what was ever taken at one moment."""
        return sum(self.peaks.values())

    def _watch(self) -> None:
        while True:
            last = self._ended.wait(self._every_s)
            for name, process in self._processes().items():
                with suppress(psutil.Error):
                    self.peaks[name] = max(self.peaks.get(name, 0), self._measure(process))
            if last:
                return
