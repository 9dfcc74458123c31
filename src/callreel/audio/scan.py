"""The stretches of speech of a whole recording, found in sections side by side, while it is still being decoded."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np

from callreel.audio.pcm import SAMPLE_RATE, Samples
from callreel.audio.vad import FRAME, Probabilities, Speech, Vad, speech_stretches

SECTION = 120 * SAMPLE_RATE  # samples, a multiple of FRAME; fixed, so that the outcome depends on no thread
RUN_UP = 100 * FRAME  # heard before each section: the model is unsure at its very start, wherever that is
BLOCK = 320 * FRAME  # samples read at once


class SpeechScan:
    """Speech of one recording: `advance` as far as its samples can be read, then ask for the `stretches`."""

    def __init__(self, pcm: Samples, pool: Executor) -> None:
        self._pcm, self._pool = pcm, pool
        self._sections: list[Future[Probabilities]] = []

    def advance(self) -> None:
        """Begin with all sections that are whole by now."""
        while (len(self._sections) + 1) * SECTION <= len(self._pcm):
            self._begin()

    def stretches(self, *, min_silence_s: float = 0.1) -> list[Speech]:
        """All speech, once no more samples come."""
        total = len(self._pcm)
        while len(self._sections) * SECTION < total:
            self._begin()
        frames = (float(p) for section in self._sections for p in section.result())
        return list(speech_stretches(frames, total, min_silence_s=min_silence_s))

    def _begin(self) -> None:
        start = len(self._sections) * SECTION
        self._sections.append(self._pool.submit(_probabilities, self._pcm, start, start + SECTION))


def _probabilities(pcm: Samples, start: int, end: int) -> Probabilities:
    """Of the frames in samples [start, end); the last frame of a recording is completed with silence, so that no
    speech at its very end goes unseen."""
    vad, found = Vad(), list[Probabilities]()
    if start:
        vad.feed(pcm[max(0, start - RUN_UP) : start])
    for at in range(start, end, BLOCK):
        block = pcm[at : min(at + BLOCK, end)]
        found.append(vad.feed(np.pad(block, (0, -len(block) % FRAME))))
    return np.concatenate(found)
