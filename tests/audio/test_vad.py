from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.audio.decode import decode
from callreel.audio.pcm import EMPTY, Pcm, samples
from callreel.audio.vad import FRAME, SPEECH_THRESHOLD, Probabilities, Speech, Vad, speech_stretches

AUDIO = Path(__file__).parents[1] / "data" / "audio"


@cache
def recording(name: str) -> Pcm:
    return np.concatenate(list(decode(AUDIO / name)))


@cache
def fed_whole() -> Probabilities:
    return Vad().feed(recording("en_short.wav"))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 20_000), max_size=40))
def test_how_audio_is_split_does_not_matter(sizes: list[int]) -> None:
    pcm, vad, found, at = recording("en_short.wav"), Vad(), [], 0
    for size in [*sizes, len(pcm)]:
        found.append(vad.feed(pcm[at : at + size]))
        at += size
    np.testing.assert_allclose(np.concatenate(found), fed_whole(), atol=1e-4)


def test_frames_come_as_soon_as_they_are_whole() -> None:
    vad = Vad()
    assert len(vad.feed(np.zeros(FRAME - 1, np.int16))) == 0
    assert len(vad.feed(EMPTY)) == 0
    assert len(vad.feed(np.zeros(1, np.int16))) == 1
    assert len(vad.feed(np.zeros(3 * FRAME, np.int16))) == 3


def test_streams_do_not_hear_each_other() -> None:
    pcm, one, other = recording("en_short.wav"), Vad(), Vad()
    noise = recording("noise_8s.flac")
    found = []
    for at in range(0, len(pcm), 1600):
        found.append(one.feed(pcm[at : at + 1600]))
        other.feed(noise[at : at + 1600])
    np.testing.assert_allclose(np.concatenate(found), fed_whole(), atol=1e-4)


def test_probabilities_are_probabilities_and_speech_is_heard() -> None:
    assert len(fed_whole()) == len(recording("en_short.wav")) // FRAME
    assert ((fed_whole() >= 0) & (fed_whole() <= 1)).all()
    assert fed_whole().max() > 0.9


@given(
    st.lists(st.floats(0, 1, width=32), max_size=80),
    st.integers(1, FRAME),
    st.floats(0, 0.5),
    st.floats(0, 0.3),
)
def test_stretches_are_ordered_apart_and_inside(
    probabilities: list[float], last_frame: int, min_silence_s: float, min_speech_s: float
) -> None:
    total = max(0, (len(probabilities) - 1) * FRAME + last_frame)  # the last frame may be completed with silence
    found = list(speech_stretches(probabilities, total, min_silence_s=min_silence_s, min_speech_s=min_speech_s))
    bounds = [at for stretch in found for at in (stretch.start, stretch.end)]
    assert bounds == sorted(bounds)
    assert all(0 <= s.start < s.end <= total for s in found)
    for stretch in found:
        assert stretch.end - stretch.start >= samples(min_speech_s) or stretch.end == total
        assert probabilities[stretch.start // FRAME] >= SPEECH_THRESHOLD
    for before, after in pairwise(found):
        assert after.start - before.end >= samples(min_silence_s)
    if min_speech_s == 0:
        sure = {i for i, p in enumerate(probabilities) if p >= SPEECH_THRESHOLD}
        inside = {i for s in found for i in range(s.start // FRAME, -(-s.end // FRAME))}
        assert sure <= inside


def test_a_short_pause_does_not_end_a_stretch_and_a_click_is_none() -> None:
    speech, silence = [0.9] * 10, [0.0] * 3  # 3 frames: 96 ms
    assert list(speech_stretches([*speech, *silence, *speech], 23 * FRAME)) == [Speech(0, 23 * FRAME)]
    assert list(speech_stretches([*speech, *silence, 0.0, *speech], 24 * FRAME)) == [
        Speech(0, 10 * FRAME),
        Speech(14 * FRAME, 24 * FRAME),
    ]
    assert list(speech_stretches([0.9] * 3 + [0.0] * 9, 12 * FRAME)) == []


def test_leaving_speech_needs_more_certainty_than_staying() -> None:
    unsure = [0.4] * 20
    assert list(speech_stretches(unsure, 20 * FRAME)) == []
    assert list(speech_stretches([0.6, *unsure], 21 * FRAME)) == [Speech(0, 21 * FRAME)]


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """ONNX Runtime keeps a file of its reports, under an id that it makes, as soon as it is imported."""
    suppress = ("CI", "ORT_", "GITHUB_", "TF_BUILD", "HF_")  # what makes it keep quiet by itself
    environment = {name: value for name, value in os.environ.items() if not name.startswith(suppress)}
    environment |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    vad = "import callreel.audio.vad as vad; vad._session()"
    subprocess.run([sys.executable, "-c", vad], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
