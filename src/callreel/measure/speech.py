"""Sound that a voice activity detector takes for speech, made up: speed can be measured without a recording.

A glottal pulse train through the formants of a vowel, with a burst of noise in front, is a syllable; syllables make
phrases of a few seconds with pauses between them, as in a talk. Nobody understands it, and no engine needs to.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from callreel.audio.pcm import SAMPLE_RATE, Pcm, quantize, samples

# Formants in Hz (Peterson and Barney 1952, men) and their bandwidths.
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
BANDWIDTHS = (80, 100, 140)
SYLLABLE_S, BURST_S, PAUSE_S = (0.12, 0.25), (0.03, 0.07), (0.2, 0.5)
SYLLABLES = (8, 20)  # of a phrase
LEVEL, BREATH = 0.4, 0.001  # of full scale: the loudest syllable, and the noise under all of it

Signal: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]


def babble(duration_s: float, *, seed: int = 0) -> Pcm:
    """`duration_s` of made-up speech, the same for the same seed."""
    random = np.random.default_rng(seed)
    wanted, parts, n = samples(duration_s), [np.zeros(0, np.float32)], 0
    while n < wanted:
        phrase = [_syllable(random) for _ in range(int(random.integers(*SYLLABLES)))]
        phrase.append(np.zeros(samples(random.uniform(*PAUSE_S)), np.float32))
        parts += phrase
        n += sum(map(len, phrase))
    signal = np.concatenate(parts)[:wanted] * np.float32(LEVEL)
    return quantize(signal + np.float32(BREATH) * random.standard_normal(wanted, dtype=np.float32))


def _syllable(random: np.random.Generator) -> Signal:
    duration_s = random.uniform(*SYLLABLE_S)
    at = np.arange(samples(duration_s)) / SAMPLE_RATE
    pitch_hz = random.uniform(95, 150) * (1 + 0.08 * np.sin(2 * np.pi * random.uniform(2, 4) * at))
    vowel = np.diff(np.floor(np.cumsum(pitch_hz) / SAMPLE_RATE), prepend=0.0)  # a pulse a period
    vowel += 0.01 * random.standard_normal(len(vowel))
    for formant_hz, bandwidth_hz in zip(VOWELS[random.integers(len(VOWELS))], BANDWIDTHS, strict=True):
        vowel = _resonated(vowel, formant_hz * random.uniform(0.95, 1.05), bandwidth_hz)
    vowel *= np.clip(np.minimum(at / 0.03, (duration_s - at) / 0.05), 0, 1) * random.uniform(0.5, 1.0)
    burst = _resonated(random.standard_normal(samples(random.uniform(*BURST_S))), random.uniform(2000, 5000), 800)
    burst *= 0.12 * np.hanning(len(burst))
    return np.concatenate([burst, vowel]).astype(np.float32)


def _resonated(
    signal: np.ndarray[tuple[int], np.dtype[np.float64]], centre_hz: float, bandwidth_hz: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """`signal` through a resonance of two poles, its peak at 1."""
    size = 1 << (len(signal) - 1).bit_length()
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    radius, angle = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE), 2 * np.pi * centre_hz / SAMPLE_RATE
    response = 1 / (1 - 2 * radius * np.cos(angle) * turn + (radius * turn) ** 2)
    out = np.fft.irfft(np.fft.rfft(signal, size) * response, size)[: len(signal)]
    return np.asarray(out / np.abs(out).max(), np.float64)
