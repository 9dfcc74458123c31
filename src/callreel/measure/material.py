"""What is listened to: recordings of any length, out of short ones or of none."""

from __future__ import annotations

import random
import wave
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from callreel.audio.decode import decode
from callreel.audio.pcm import BYTES_PER_SAMPLE, SAMPLE_RATE, Pcm, samples
from callreel.errors import InvalidInput
from callreel.measure.speech import babble

BABBLE_S = 300.0  # made up once, then repeated


def wave_file(path: Path, parts: Sequence[Pcm], length_s: float, *, seed: int | None = None) -> Path:
    """A WAV of `length_s` at `path`: all of `parts` one after another, again and again; shuffled anew each time if a
    `seed` is given. Returns `path`. Raises InvalidInput where there is no sound in the parts.
    """
    if not sum(map(len, parts)):
        raise InvalidInput("There is no sound to make a recording of")
    left = samples(length_s)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, BYTES_PER_SAMPLE, SAMPLE_RATE, 0, "NONE", ""))
        for part in _endless(parts, seed):
            file.writeframes(part[:left].tobytes())
            left -= len(part)
            if left <= 0:
                return path
    raise AssertionError("the parts have no end")


def _endless(parts: Sequence[Pcm], seed: int | None) -> Iterator[Pcm]:
    for turn in count():
        order = list(range(len(parts)))
        if seed is not None:
            random.Random(seed + turn).shuffle(order)
        yield from (parts[i] for i in order)


def babble_file(path: Path, length_s: float) -> Path:
    """A WAV of `length_s` of made-up speech at `path`; returns `path`."""
    return wave_file(path, [babble(min(BABBLE_S, length_s))], length_s)


def repeated_file(path: Path, source: Path, length_s: float) -> Path:
    """A WAV of `length_s` at `path`, of any media file: cut off, or again and again. Raises UnreadableMedia."""
    return wave_file(path, [np.concatenate(list(decode(source)))], length_s)


def duration_s(path: Path) -> float:
    """Of a WAV."""
    with wave.open(str(path), "rb") as file:
        return file.getnframes() / file.getframerate()
