from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.audio.pcm import EMPTY, SAMPLE_RATE, Pcm, samples
from callreel.engines.base import DecodeOptions, Engine, Window
from callreel.errors import InvalidInput, ModelMissing
from callreel.measure.oracle import KnownAudio, OracleEngine, Recording, known_recordings
from callreel.text import Word, join_words

AUDIO = Path(__file__).parents[1] / "data" / "audio"
ENGLISH = DecodeOptions(language="en")


@cache
def recordings() -> list[Recording]:
    return known_recordings(AUDIO)


@cache
def known() -> KnownAudio:
    return KnownAudio(recordings())


@pytest.fixture(scope="module")
def oracle(tiny: Path) -> OracleEngine:
    return OracleEngine(tiny, recordings(), threads=2)


def words_inside(recording: Recording, start: int, end: int, *, at: int = 0) -> list[Word]:
    """Reference words wholly inside samples [start, end), on the clock of a window in which `start` is sample `at`."""
    inside = [w for w in recording.words if samples(w.start) >= start and samples(w.end) <= end]
    return [w.shifted((at - start) / SAMPLE_RATE) for w in inside]


def assert_same_words(found: tuple[Word, ...], expected: list[Word]) -> None:
    assert [w.word for w in found] == [w.word for w in expected]
    for got, wanted in zip(found, expected, strict=True):
        assert got.start == pytest.approx(wanted.start, abs=0.001)
        assert got.end == pytest.approx(wanted.end, abs=0.001)


@st.composite
def slices(draw: st.DrawFn, longest_s: float = 30.0) -> tuple[Recording, int, int]:
    recording = draw(st.sampled_from(recordings()))
    start = draw(st.integers(0, len(recording.pcm)))
    return recording, start, min(len(recording.pcm), start + draw(st.integers(0, samples(longest_s))))


@settings(deadline=None)  # the first example indexes the recordings
@given(slices(), st.integers(0, 32_000), st.integers(0, 32_000))
def test_exactly_the_words_inside_a_slice_are_found(cut: tuple[Recording, int, int], before: int, after: int) -> None:
    recording, start, end = cut
    found, language = known().find(np.pad(recording.pcm[start:end], (before, after)))
    expected = words_inside(recording, start, end, at=before)
    assert_same_words(found, expected)
    assert language == (recording.language if expected else None)


@settings(deadline=None)  # the first example indexes the recordings
@given(slices(), slices(), st.integers(1, 8_000))
def test_one_recording_after_another(a: tuple[Recording, int, int], b: tuple[Recording, int, int], pause: int) -> None:
    (one, start, end), (other, first, last) = a, b
    silence = np.zeros(pause, np.int16)
    found, _ = known().find(np.concatenate([one.pcm[start:end], silence, other.pcm[first:last]]))
    assert_same_words(found, words_inside(one, start, end) + words_inside(other, first, last, at=end - start + pause))


@settings(deadline=None)  # the first example indexes the recordings
@given(slices(), st.integers(0, 2**32))
def test_a_unit_of_noise_does_not_matter(cut: tuple[Recording, int, int], seed: int) -> None:
    recording, start, end = cut
    noise = np.random.default_rng(seed).integers(-1, 2, end - start).astype(np.int16)
    assert_same_words(known().find(recording.pcm[start:end] + noise)[0], words_inside(recording, start, end))


def test_every_word_by_itself() -> None:
    for recording in recordings():
        for word in recording.words:
            found, _ = known().find(recording.pcm[samples(word.start) : samples(word.end)])
            assert [w.word for w in found] == [word.word]


def test_a_recording_in_a_loop() -> None:
    recording = recordings()[0]
    n = len(recording.pcm)
    found, _ = known().find(np.tile(recording.pcm, 8)[n // 3 :])
    expected = [w for turn in range(8) for w in words_inside(recording, n // 3 if turn == 0 else 0, n, at=0)]
    assert [w.word for w in found] == [w.word for w in expected]


def test_lost_audio_costs_the_words_it_hits() -> None:
    recording = next(r for r in recordings() if len(r.words) > 10)
    lost = recording.words[5]
    pcm = recording.pcm[: samples(20)].copy()
    pcm[samples(lost.start) + 500 : samples(lost.start) + 820] = 0  # one packet of 20 ms
    found, _ = known().find(pcm)
    assert_same_words(found, [w for w in words_inside(recording, 0, len(pcm)) if w != lost.shifted(0)])


def test_the_same_audio_known_twice_is_said_once() -> None:
    recording = recordings()[0]
    found, _ = KnownAudio([recording, recording]).find(recording.pcm)
    assert_same_words(found, list(recording.words))


@pytest.mark.parametrize("pcm", [EMPTY, np.zeros(64, np.int16), np.zeros(80_000, np.int16)])
def test_silence_says_nothing(pcm: Pcm) -> None:
    assert known().find(pcm) == ((), None)
    assert KnownAudio([]).find(pcm) == ((), None)


def test_strange_audio_says_nothing() -> None:
    rng = np.random.default_rng(0)
    for strange in (rng.normal(0, 3000, 160_000), 20_000 * np.sin(np.arange(160_000) / 20)):
        assert known().find(strange.astype(np.int16)) == ((), None)


def test_channels_are_known_by_themselves_and_mixed() -> None:
    tracks = json.loads((AUDIO / "references.json").read_text())["call_stereo.flac"]["tracks"]
    mono, agent, caller = recordings()[-3:]
    assert [join_words(r.words) for r in (agent, caller)] == [tracks["agent"]["text"], tracks["caller"]["text"]]
    assert len(mono.words) == len(agent.words) + len(caller.words)
    mean = (agent.pcm.astype(np.int32) + caller.pcm) / 2
    assert np.abs(mono.pcm - mean).max() <= 0.5


def test_a_folder_with_one_recording(tmp_path: Path, tiny: Path) -> None:
    entry = json.loads((AUDIO / "references.json").read_text())["en_short.wav"]
    (tmp_path / "references.json").write_text(json.dumps({"en_short.wav": entry}))
    shutil.copy(AUDIO / "en_short.wav", tmp_path)
    (decoded,) = OracleEngine(tiny, tmp_path).decode([Window(recordings()[0].pcm)], ENGLISH)
    assert join_words(decoded.words) == entry["tracks"]["mono"]["text"]


def test_the_oracle_says_what_it_is(oracle: OracleEngine) -> None:
    engine: Engine = oracle
    assert (engine.name, engine.model) == ("oracle", "synthetic-tiny")
    assert (engine.capabilities.batch, engine.capabilities.max_window_s) == (8, 30.0)


def test_a_mixed_batch_is_answered_in_order(oracle: OracleEngine) -> None:
    hello, long = recordings()[0], recordings()[4]
    cut = long.pcm[: samples(12.3)]
    windows = [Window(EMPTY), Window(hello.pcm, "what was said before"), Window(np.zeros(999, np.int16)), Window(cut)]
    nothing, first, silence, second = oracle.decode(windows, ENGLISH)
    assert nothing.words == silence.words == ()
    assert_same_words(first.words, list(hello.words))
    assert_same_words(second.words, words_inside(long, 0, len(cut)))
    assert {w.probability for w in first.words} == {1.0}


def test_tokens_are_paid_by_the_word(oracle: OracleEngine) -> None:
    hello, long = recordings()[0], recordings()[4]
    windows = [Window(EMPTY), Window(hello.pcm, "so " * 500), Window(long.pcm[: samples(15)])]
    decoded = oracle.decode(windows, ENGLISH)
    assert [d.stats.tokens for d in decoded] == [round(len(d.words) * 1.3) for d in decoded]
    assert [d.stats.no_speech_prob for d in decoded] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(language="en", beam_size=3),
        DecodeOptions(language="en", temperature=0.8),
        DecodeOptions(language="en", task="translate", hotwords="transfer account"),
    ],
)
def test_options_change_the_price_only(oracle: OracleEngine, options: DecodeOptions) -> None:
    hello, silence = oracle.decode([Window(recordings()[0].pcm), Window(EMPTY)], options)
    assert (hello.stats.tokens, silence.stats.tokens) == (6, 0)
    assert_same_words(hello.words, list(recordings()[0].words))
    assert hello.stats.temperature == options.temperature


def test_the_language_is_that_of_the_recording(oracle: OracleEngine) -> None:
    swahili = next(r for r in recordings() if r.language == "sw")
    decoded = oracle.decode([Window(swahili.pcm), Window(recordings()[0].pcm), Window(EMPTY)], DecodeOptions())
    assert [d.language for d in decoded] == ["sw", "en", None]


def test_short_windows_are_padded_to_the_minimum(tiny: Path) -> None:
    oracle = OracleEngine(tiny, recordings(), min_window_s=3.0)
    assert oracle._mel([EMPTY]).shape == (1, 80, 300)
    assert oracle._mel([np.zeros(48_001, np.int16), EMPTY]).shape == (2, 80, 302)
    with pytest.raises(InvalidInput, match="30"):
        oracle.decode([Window(np.zeros(samples(30) + 1, np.int16))], ENGLISH)


def test_several_threads_decode_at_once(oracle: OracleEngine) -> None:
    recording = recordings()[4]
    starts = range(0, samples(12), samples(1.5))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda s: oracle.decode([Window(recording.pcm[s : s + 48_000])], ENGLISH), starts))
    for start, (decoded,) in zip(starts, results, strict=True):
        assert_same_words(decoded.words, words_inside(recording, start, start + 48_000))


def test_no_windows_no_weights(oracle: OracleEngine, tmp_path: Path) -> None:
    assert oracle.decode([], ENGLISH) == []
    with pytest.raises(ModelMissing):
        OracleEngine(tmp_path, recordings())
