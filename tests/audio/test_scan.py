from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callreel.audio import scan
from callreel.audio.decode import decode
from callreel.audio.pcm import EMPTY, SAMPLE_RATE, Pcm, samples
from callreel.audio.scan import SpeechScan
from callreel.audio.vad import FRAME, Speech

AUDIO = Path(__file__).parents[1] / "data" / "audio"


@cache
def recording(name: str) -> Pcm:
    return np.concatenate(list(decode(AUDIO / name)))


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def detect_speech(pcm: Pcm, *, min_silence_s: float = 0.1) -> list[Speech]:
    with ThreadPoolExecutor(1) as pool:
        return SpeechScan(pcm, pool).stretches(min_silence_s=min_silence_s)


@pytest.mark.parametrize("name", ["silence_5s.flac", "noise_8s.flac"])
def test_no_speech_in_silence_and_noise(name: str) -> None:
    assert detect_speech(recording(name)) == []


@pytest.mark.parametrize(
    "name", ["en_short.wav", "en_two_speakers.flac", "en_silence_middle.flac", "sw_short.flac", "en_unseen_voice.flac"]
)
def test_utterances_are_found_where_they_are(name: str, references: dict[str, Any]) -> None:
    said = references[name]["tracks"]["mono"]["utterances"]
    heard = detect_speech(recording(name), min_silence_s=0.3)
    assert len(heard) == len(said)
    for stretch, utterance in zip(heard, said, strict=True):
        assert stretch.start / SAMPLE_RATE == pytest.approx(utterance["start"], abs=0.1)
        assert stretch.end / SAMPLE_RATE == pytest.approx(utterance["end"], abs=0.1)


def test_speech_up_to_the_very_end_is_heard() -> None:
    pcm = recording("en_short.wav")[: samples(1.5) + 400]  # in the middle of a word, and of a frame
    assert detect_speech(pcm)[-1].end == len(pcm)


def test_no_audio_no_speech() -> None:
    assert detect_speech(EMPTY) == []


class Growing:
    """A recording of which ever more can be read."""

    def __init__(self, pcm: Pcm) -> None:
        self._pcm, self.there = pcm, 0

    def __len__(self) -> int:
        return self.there

    def __getitem__(self, part: slice, /) -> Pcm:
        return self._pcm[: self.there][part]


@pytest.mark.parametrize("step_s", [3.0, 19.7, 60.0])
def test_it_does_not_matter_when_the_sound_comes(
    step_s: float, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "SECTION", 400 * FRAME)  # 12.8 s
    pcm = recording("en_long_50s.flac")
    whole = SpeechScan(pcm, pool).stretches()
    growing = Growing(pcm)
    found = SpeechScan(growing, pool)
    while growing.there < len(pcm):
        growing.there = min(len(pcm), growing.there + samples(step_s))
        found.advance()
    assert found.stretches() == whole


def test_sections_cost_no_speech(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = recording("en_long_50s.flac")
    in_one = SpeechScan(pcm, pool).stretches(min_silence_s=0.3)
    monkeypatch.setattr(scan, "SECTION", 400 * FRAME)
    in_sections = SpeechScan(pcm, pool).stretches(min_silence_s=0.3)
    assert len(in_sections) == len(in_one)
    for one, other in zip(in_one, in_sections, strict=True):
        assert abs(one.start - other.start) <= 3 * FRAME
        assert abs(one.end - other.end) <= 3 * FRAME
