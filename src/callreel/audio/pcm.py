"""The one audio format inside Callreel: int16 samples, mono, 16 kHz."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import numpy as np

SAMPLE_RATE = 16_000  # Hz
BYTES_PER_SAMPLE = 2

Channels: TypeAlias = Literal["mix", "split"]  # of a file: made one, or each a track

Pcm: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int16]]


class Samples(Protocol):
    """Samples that are read where they are needed: an array, or a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Pcm: ...


EMPTY: Pcm = np.zeros(0, np.int16)


def seconds(n_samples: int) -> float:
    return n_samples / SAMPLE_RATE


def samples(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE)


def quantize(signal: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Pcm:
    """float32 in [-1, 1] to int16, clipped; NaN becomes silence. Done once, where audio comes in."""
    clipped = np.clip(np.nan_to_num(signal, nan=0.0), -1.0, 1.0)  # before the scaling, which could overflow
    quantized: Pcm = np.minimum(np.rint(clipped * 32768.0), 32767).astype(np.int16)
    return quantized
