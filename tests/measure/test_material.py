from __future__ import annotations

import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.audio.pcm import EMPTY, Pcm, samples
from callreel.errors import InvalidInput, UnreadableMedia
from callreel.measure.material import babble_file, duration_s, repeated_file, wave_file

PARTS = [np.full(160, 1, np.int16), np.full(320, 2, np.int16), np.full(480, 3, np.int16)]


def read(path: Path) -> Pcm:
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 4000), seed=st.none() | st.integers(0, 3))
def test_parts_are_repeated_whole_and_cut_at_the_length(length: int, seed: int | None) -> None:
    with TemporaryDirectory() as folder:
        pcm = read(wave_file(Path(folder) / "x.wav", PARTS, length / 16_000, seed=seed))
    assert len(pcm) == length
    whole = sum(map(len, PARTS))
    for turn in range(length // whole):
        values, counts = np.unique(pcm[turn * whole : (turn + 1) * whole], return_counts=True)
        assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {1: 160, 2: 320, 3: 480}
    if seed is None:
        assert np.array_equal(pcm, np.resize(np.concatenate(PARTS), length))


def test_each_turn_is_shuffled_anew(tmp_path: Path) -> None:
    pcm = read(wave_file(tmp_path / "x.wav", PARTS, 10 * 0.06, seed=0))
    turns = {tuple(pcm[at : at + 960].tolist()) for at in range(0, len(pcm), 960)}
    assert 1 < len(turns) <= 6


@pytest.mark.parametrize("parts", [[], [EMPTY, EMPTY]])
def test_without_sound_there_is_no_recording(parts: list[Pcm], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no sound"):
        wave_file(tmp_path / "x.wav", parts, 1.0)
    assert not (tmp_path / "x.wav").exists()


def test_any_recording_is_brought_to_a_length(audio: Path, tmp_path: Path) -> None:
    for length_s in (1.5, 7.25):
        assert duration_s(repeated_file(tmp_path / "x.wav", audio / "sw_short.flac", length_s)) == length_s
    with pytest.raises(UnreadableMedia):
        repeated_file(tmp_path / "y.wav", audio / "references.json", 1.0)


def test_made_up_speech_of_a_length(tmp_path: Path) -> None:
    pcm = read(babble_file(tmp_path / "x.wav", 2.5))
    assert len(pcm) == samples(2.5) and pcm.any()
