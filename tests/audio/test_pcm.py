from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from callreel.audio.pcm import SAMPLE_RATE, quantize, samples, seconds

any_float32 = npst.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32))
in_range = npst.arrays(np.float32, st.integers(0, 50), elements=st.floats(-1, 1, width=32))


@given(any_float32)
def test_any_float_becomes_a_sample(signal: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    pcm = quantize(signal)
    assert pcm.dtype == np.int16
    assert pcm.shape == signal.shape
    assert (pcm[np.isnan(signal)] == 0).all()
    assert (pcm[signal >= 1] == 32767).all()
    assert (pcm[signal <= -1] == -32768).all()


@given(in_range)
def test_within_one_step_of_the_signal(signal: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    error = np.abs(quantize(signal).astype(np.float64) - signal.astype(np.float64) * 32768)
    assert (error <= 1).all()
    assert (error[signal < 0.9999] <= 0.5).all()  # only +1.0 itself has no sample of its own


@given(npst.arrays(np.int16, st.integers(0, 50)))
def test_what_was_quantized_once_stays_the_same(pcm: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
    np.testing.assert_array_equal(quantize(pcm.astype(np.float32) / 32768), pcm)


@given(st.integers(0, 10**9))
def test_samples_and_seconds_are_inverse(n_samples: int) -> None:
    assert samples(seconds(n_samples)) == n_samples


def test_a_second_has_16000_samples() -> None:
    assert samples(1.0) == SAMPLE_RATE == 16_000
    assert seconds(8_000) == pytest.approx(0.5)
