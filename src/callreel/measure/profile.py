"""Which functions cost most, in all threads of this process: cProfile by itself sees the one that started it."""

from __future__ import annotations

import cProfile
import io
import pstats
import sys
import threading
from types import FrameType
from typing import Any

COSTLIEST = 20


class Profiled:
    """A context whose threads are profiled, those that it starts too, if `wanted`."""

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self._profiles: list[cProfile.Profile] = []

    def __enter__(self) -> Profiled:
        if self._wanted:
            if sys.version_info < (3, 12):  # later ones hear of all threads by themselves
                threading.setprofile(self._in_new_thread)
            self._add()
        return self

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            self._profiles[0].disable()
            if sys.version_info < (3, 12):
                threading.setprofile(None)

    def costliest(self, number: int = COSTLIEST) -> str:
        """The `number` functions with the most time in themselves, as a table; empty where nothing was profiled."""
        if not self._profiles:
            return ""
        out = io.StringIO()
        stats = pstats.Stats(*self._profiles, stream=out)
        stats.sort_stats("tottime").print_stats(number)
        return out.getvalue().strip()

    def _in_new_thread(self, frame: FrameType, event: str, argument: Any) -> None:
        """Called once in each thread that begins: its own profile takes over from here."""
        self._add()

    def _add(self) -> None:
        profile = cProfile.Profile()
        self._profiles.append(profile)
        profile.enable()
