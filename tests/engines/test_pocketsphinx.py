from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from callreel.audio.decode import decode
from callreel.audio.pcm import EMPTY, Pcm, seconds
from callreel.engines.base import Decoded, DecodeOptions, Window
from callreel.engines.pocketsphinx import FILLER, PRONUNCIATION, PocketSphinxEngine


@pytest.fixture(scope="module")
def engine() -> PocketSphinxEngine:
    return PocketSphinxEngine()


@pytest.fixture(scope="module")
def pcm(toy_audio: Path) -> Pcm:
    return np.concatenate(list(decode(toy_audio / "en_short.wav")))


@pytest.fixture(scope="module")
def heard(engine: PocketSphinxEngine, pcm: Pcm) -> Iterator[Decoded]:
    (decoded,) = engine.decode([Window(pcm)], DecodeOptions())
    yield decoded


def test_it_says_what_it_can_do(engine: PocketSphinxEngine) -> None:
    assert (engine.name, engine.model) == ("pocketsphinx", "en-us")
    assert engine.capabilities.languages == ("en",)
    assert not engine.capabilities.translate


def test_english_words(heard: Decoded) -> None:
    assert heard.language == "en"
    assert len(heard.words) >= 3
    assert heard.stats.tokens == len(heard.words)
    for word in heard.words:
        assert word.word.startswith(" ")
        assert not FILLER.match(word.word.strip())
        assert not PRONUNCIATION.search(word.word)
        assert 0 <= word.probability <= 1


def test_word_times(heard: Decoded, pcm: Pcm) -> None:
    times = [t for w in heard.words for t in (w.start, w.end)]
    assert all(before <= after for before, after in pairwise(times))
    assert times[0] >= 0
    assert times[-1] <= seconds(len(pcm))
    assert heard.words[0].start == pytest.approx(0.4, abs=0.3)
    assert heard.words[-1].end == pytest.approx(2.41, abs=0.3)


def test_windows_without_anything_in_them_do_no_harm(engine: PocketSphinxEngine) -> None:
    silence = np.zeros(8_000, np.int16)
    for window in (EMPTY, silence[:1], silence[:400], EMPTY, silence):
        (decoded,) = engine.decode([Window(window)], DecodeOptions())
        assert all(0 <= w.start <= w.end <= seconds(len(window)) for w in decoded.words)
        assert len(window) > 400 or decoded.words == ()


def test_after_an_error_the_next_window_is_heard(engine: PocketSphinxEngine) -> None:
    decoder = engine._decoder()
    decoder.start_utt()  # as if something had failed in the middle of an utterance
    with pytest.raises(RuntimeError):
        engine.decode([Window(np.zeros(800, np.int16))], DecodeOptions())
    assert engine.decode([Window(np.zeros(800, np.int16))], DecodeOptions())[0].language == "en"


@pytest.mark.parametrize("token", ["<s>", "</s>", "<sil>", "[NOISE]", "[SPEECH]", "++breath++"])
def test_fillers_are_no_words(token: str) -> None:
    assert FILLER.match(token)


def test_words_are_no_fillers() -> None:
    assert not any(FILLER.match(word) for word in ("the", "the(2)", "it's", "a"))
    assert PRONUNCIATION.sub("", "the(2)") == "the"
