"""An engine whose words depend on all that a decode depends on, so that any difference between two runs shows."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence

from callreel.audio.pcm import seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.text import DecodeStats, Word


class HashEngine:
    """Says two words a second: the first is a digest of the window, of its prompt, of its place in its batch and of
    the options; the others count. `languages` None: each window is in one of them, by its digest."""

    name = "hash"
    model = "sha256"

    def __init__(
        self,
        *,
        batch: int = 4,
        parallel: int = 1,
        max_window_s: float = 3.0,
        stats: Callable[[Window, DecodeOptions], DecodeStats] = lambda _w, _o: DecodeStats(avg_logprob=-0.1),
        languages: tuple[str, ...] = ("en", "sw"),
    ) -> None:
        self.capabilities = Capabilities(
            batch=batch, parallel=parallel, max_window_s=max_window_s, languages=languages, translate=True
        )
        self.asked: list[tuple[tuple[str, ...], DecodeOptions]] = []  # the prompts and the options of each call
        self.most_at_once = 0
        self._stats, self._now, self._lock = stats, 0, threading.Lock()

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.asked.append((tuple(window.prompt for window in windows), options))
        longest = max(len(window.pcm) for window in windows)
        try:
            return [self._decode(window, f"{i} {longest}", options) for i, window in enumerate(windows)]
        finally:
            with self._lock:
                self._now -= 1

    def _decode(self, window: Window, place: str, options: DecodeOptions) -> Decoded:
        heard = hashlib.sha256(window.pcm.tobytes()).hexdigest()
        text = hashlib.sha256(f"{heard} {place} {window.prompt} {options}".encode()).hexdigest()[:8]
        duration_s = seconds(len(window.pcm))
        n = max(1, int(2 * duration_s))
        times = [duration_s * i / n for i in range(n + 1)]
        words = [Word(f" {text if i == 0 else i}", times[i], times[i + 1]) for i in range(n)]
        language = options.language or self.capabilities.languages[int(heard, 16) % 2]
        return Decoded(tuple(words), language, 0.9, self._stats(window, options))
