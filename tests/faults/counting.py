"""The toy model's engine, which notes every window that it decodes: what is decoded twice can be seen.

A line a window, in the file that CALLREEL_TEST_WINDOWS names. CALLREEL_TEST_WINDOW_S makes each take so much longer, so
that a test can strike in the middle of a job on a fast machine too.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from callreel.engines import whisper
from callreel.engines.base import Decoded, DecodeOptions, EngineSpec, Window

NAME = f"{__name__}:load"
NOTES, LONGER = "CALLREEL_TEST_WINDOWS", "CALLREEL_TEST_WINDOW_S"


def load(spec: EngineSpec) -> CountingEngine:
    return CountingEngine(spec)


class CountingEngine(whisper.WhisperEngine):
    """`name` and capabilities are the engine's own, so a text is the same under either."""

    def __new__(cls, spec: EngineSpec) -> CountingEngine:
        engine = whisper.load(spec)
        engine.__class__ = cls
        assert isinstance(engine, CountingEngine)
        return engine

    def __init__(self, spec: EngineSpec) -> None:
        self._notes = Path(os.environ[NOTES])
        self._longer_s = float(os.environ.get(LONGER, "0"))
        self._noting = threading.Lock()

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        time.sleep(self._longer_s * len(windows))
        decoded = super().decode(windows, options)
        with self._noting, self._notes.open("a") as notes:
            notes.writelines(f"{hashlib.sha1(window.pcm.tobytes()).hexdigest()}\n" for window in windows)
        return decoded


def decoded(notes: Path) -> Counter[str]:
    """How often each window was decoded so far."""
    return Counter(notes.read_text().split()) if notes.exists() else Counter()
