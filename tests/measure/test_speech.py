from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from callreel.audio.pcm import SAMPLE_RATE, samples
from callreel.audio.scan import SpeechScan
from callreel.measure.speech import babble
from callreel.offline.chunk import chunks


def test_the_detector_takes_it_for_speech_with_pauses_to_cut_at() -> None:
    pcm = babble(60.0)
    with ThreadPoolExecutor(1) as pool:
        speech = SpeechScan(pcm, pool).stretches()
    spoken = sum(stretch.end - stretch.start for stretch in speech)
    assert 0.8 < spoken / len(pcm) < 0.98
    assert max(stretch.end - stretch.start for stretch in speech) < 10 * SAMPLE_RATE
    cut = chunks(speech, pcm, max_s=30.0)
    assert all(c.end - c.start <= samples(30.0) for c in cut) and len(cut) <= 4  # no window is needlessly short


@pytest.mark.parametrize("duration_s", [0.0, 0.01, 1.0, 3.3])
def test_it_is_as_long_as_asked_for_and_the_same_each_time(duration_s: float) -> None:
    pcm = babble(duration_s, seed=3)
    assert len(pcm) == samples(duration_s)
    assert np.array_equal(pcm, babble(duration_s, seed=3))


def test_another_seed_says_something_else() -> None:
    assert not np.array_equal(babble(1.0, seed=1), babble(1.0, seed=2))
    assert np.abs(babble(5.0).astype(int)).max() < 32767  # nothing is clipped
