from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from faster_whisper.tokenizer import Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.audio.decode import decode
from callreel.audio.pcm import EMPTY, Pcm, samples, seconds
from callreel.engines.base import Decoded, DecodeOptions, EngineSpec, Window
from callreel.engines.whisper import ModelCard, WhisperEngine, load
from callreel.engines.whisper_text import PROMPT_LENGTHS, Hypothesis, estimated_words, prompt_tokens
from callreel.errors import InvalidInput, ModelMissing
from callreel.offline.profiles import is_invented
from callreel.text import join_words

DATA = Path(__file__).parents[1] / "data"
QUICK_S = 3.0
ENGLISH = DecodeOptions(language="en")


@cache
def recording(name: str) -> Pcm:
    return np.concatenate(list(decode(DATA / "audio" / name)))


def spec(model: str | Path, *, min_window_s: float | None = None) -> EngineSpec:
    return EngineSpec("whisper", str(model), "/nowhere/models", min_window_s=min_window_s)


def cut(name: str, start_s: float, end_s: float, prompt: str = "") -> Window:
    return Window(recording(name)[samples(start_s) : samples(end_s)], prompt)


TEXTS = (" hello", " please transfer", "!", " my account,", " café", "?", " \u4f60\u597d")
HELLO = cut("en_short.wav", 0.0, 3.6)
TRANSFER = cut("en_unseen_voice.flac", 0.0, 3.1)
HABARI = cut("sw_short.flac", 0.0, 2.4)
TAFADHALI = cut("sw_short.flac", 5.3, 9.0)


def said(decoded: Decoded) -> str:
    return join_words(decoded.words)


def assert_same(got: Decoded, expected: Decoded) -> None:
    """The same words; a batch may round its arithmetic in another way than a single row."""
    assert (said(got), got.language) == (said(expected), expected.language)
    assert got.language_probability == pytest.approx(expected.language_probability, abs=0.02)
    for word, other in zip(got.words, expected.words, strict=True):
        assert word.start == pytest.approx(other.start, abs=0.05)
        assert word.end == pytest.approx(other.end, abs=0.05)
    assert got.stats.avg_logprob == pytest.approx(expected.stats.avg_logprob, abs=0.05)
    assert got.stats.no_speech_prob == pytest.approx(expected.stats.no_speech_prob, abs=0.05)


# -- what it hears


def test_it_knows_what_it_can_do(toy_engine: WhisperEngine) -> None:
    can = toy_engine.capabilities
    assert (toy_engine.name, toy_engine.model) == ("whisper", "whisper-toy")
    assert (can.min_window_s, can.max_window_s, can.languages) == (5.0, 10.0, ("en", "sw"))
    assert can.word_times
    assert can.translate
    assert can.batch > 1


def test_nothing_asked_nothing_answered(toy_engine: WhisperEngine) -> None:
    assert toy_engine.decode([], DecodeOptions()) == []


def test_languages_may_be_mixed_in_a_batch(toy_engine: WhisperEngine) -> None:
    windows = [HABARI, HELLO, TAFADHALI, TRANSFER]
    together = toy_engine.decode(windows, DecodeOptions())
    assert [d.language for d in together] == ["sw", "en", "sw", "en"]
    assert said(together[0]) == "habari asubuhi"
    assert said(together[1]) == "hello please transfer my account"
    assert all(0.5 < d.language_probability <= 1 for d in together)
    for window, got in zip(windows, together, strict=True):
        (alone,) = toy_engine.decode([window], DecodeOptions())
        assert_same(got, alone)


def test_a_language_that_is_given_is_kept(toy_engine: WhisperEngine) -> None:
    decoded = toy_engine.decode([HELLO, TRANSFER], ENGLISH)
    assert [(d.language, d.language_probability) for d in decoded] == [("en", 1.0)] * 2


class Overheard:
    """A model that does its work and keeps the prompts it was given."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.prompts: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, encoded: Any, prompts: list[list[int]], **options: Any) -> Any:
        self.prompts += prompts
        return self._model.generate(encoded, prompts, **options)


@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_the_task_is_told_to_the_model(
    task: Literal["transcribe", "translate"], toy_engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Overheard(toy_engine._whisper.model)
    monkeypatch.setattr(toy_engine._whisper, "model", model)
    windows = [Window(HABARI.pcm), Window(TAFADHALI.pcm, "habari")]
    toy_engine.decode(windows, DecodeOptions(language="sw", task=task))
    start = [f"<|{name}|>" for name in ("startoftranscript", "sw", task)]
    tokens = [toy_engine._whisper.hf_tokenizer.token_to_id(token) for token in start]
    assert len(model.prompts) == 2 and None not in tokens
    for prompt in model.prompts:
        at = prompt.index(tokens[0])
        assert prompt[at : at + 3] == tokens


def test_prompts_of_different_lengths_in_one_batch(toy_engine: WhisperEngine) -> None:
    prompts = ["", "hello", "good morning customer service we need help with the router and the invoice"]
    windows = [Window(w.pcm, prompt) for w in (HELLO, TRANSFER, HELLO, TRANSFER) for prompt in prompts]
    together = toy_engine.decode(windows, ENGLISH)
    assert said(together[0]) == "hello please transfer my account"  # no prompt, though others in the batch have one
    for window, got in zip(windows, together, strict=True):
        (alone,) = toy_engine.decode([window], ENGLISH)
        assert_same(got, alone)


@cache
def english_tokenizer() -> Tokenizer:
    return load(spec(DATA / "whisper-toy"))._tokenizer("en", ENGLISH)


@settings(deadline=None)
@given(context=st.text("abc dé。", max_size=400), hotwords=st.text("xyz ", max_size=200))
def test_a_prompt_is_hotwords_and_the_end_of_what_was_said_before(context: str, hotwords: str) -> None:
    tokenizer = english_tokenizer()
    hot, before = (tokenizer.encode(" " + text.strip()) if text.strip() else [] for text in (hotwords, context))
    prompt = prompt_tokens(tokenizer, context, hotwords)
    start = list(tokenizer.sot_sequence)
    assert prompt[-len(start) :] == start
    told = prompt[: -len(start)]
    if not told:
        assert not hot
        assert len(before) < PROMPT_LENGTHS[1]
        return
    assert told[0] == tokenizer.sot_prev
    n_told = len(told) - 1
    assert n_told <= PROMPT_LENGTHS[-1]
    assert n_told in PROMPT_LENGTHS or n_told <= len(hot)
    n_hot = min(len(hot), PROMPT_LENGTHS[-1] // 2 if before else PROMPT_LENGTHS[-1])
    assert told[1 : 1 + n_hot] == hot[:n_hot]
    assert told[1 + n_hot :] == before[len(before) - (n_told - n_hot) :]
    n_given = len(hot) + len(before)
    assert n_given < PROMPT_LENGTHS[1] or 2 * n_told >= min(n_given, PROMPT_LENGTHS[-1])  # at most half is lost


@pytest.mark.parametrize("duration_s", [0.0, 1 / 16_000, 0.5, 5.0, 12.0])
def test_silence_says_nothing(duration_s: float, toy_engine: WhisperEngine) -> None:
    (decoded,) = toy_engine.decode([Window(np.zeros(samples(duration_s), np.int16))], DecodeOptions())
    assert decoded.words == () or is_invented(decoded)
    assert decoded.stats.no_speech_prob is not None
    assert decoded.stats.no_speech_prob > 0.6


def test_silence_and_speech_in_one_batch(toy_engine: WhisperEngine) -> None:
    silence = Window(np.zeros(samples(3), np.int16))
    first, second, third = toy_engine.decode([silence, HELLO, Window(EMPTY)], ENGLISH)
    assert first.words == third.words == ()
    assert said(second) == "hello please transfer my account"


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["en_digits.flac", "en_live_20s.flac", "sw_short.flac", "noise_8s.flac"]),
    st.floats(0, 1),
    st.floats(0.0, 10.0),
    st.sampled_from([DecodeOptions(), ENGLISH, DecodeOptions("en", beam_size=3), DecodeOptions("en", temperature=0.8)]),
)
def test_word_times_are_in_order_and_inside_the_window(
    toy_engine: WhisperEngine, name: str, where: float, length_s: float, options: DecodeOptions
) -> None:
    pcm = recording(name)
    start = round(where * len(pcm))
    window = Window(pcm[start : start + samples(length_s)])
    (decoded,) = toy_engine.decode([window], options)
    times = [t for w in decoded.words for t in (w.start, w.end)]
    assert all(0 <= t <= seconds(len(window.pcm)) + 0.0005 for t in times)  # rounded to a millisecond
    assert all(before <= after for before, after in pairwise(times))
    assert all(0 <= w.probability <= 1 and w.word.strip() for w in decoded.words)
    assert decoded.stats.temperature == options.temperature


def test_word_times_are_where_the_words_are(toy_engine: WhisperEngine) -> None:
    (decoded,) = toy_engine.decode([HELLO], ENGLISH)
    starts = [w.start for w in decoded.words]
    assert starts == pytest.approx([0.4, 0.713, 1.072, 1.711, 1.847], abs=0.2)
    assert decoded.words[-1].end == pytest.approx(2.41, abs=0.2)


def test_stats_tell_speech_from_none(toy_engine: WhisperEngine) -> None:
    (decoded,) = toy_engine.decode([HELLO], ENGLISH)
    stats = decoded.stats
    assert stats.avg_logprob is not None
    assert -0.5 < stats.avg_logprob <= 0
    assert stats.no_speech_prob is not None
    assert stats.no_speech_prob < 0.5
    assert stats.tokens >= 5
    assert stats.compression_ratio is not None
    assert 0 < stats.compression_ratio < 2.4


# -- words without an alignment


def test_without_word_times_the_words_are_the_same(toy_engine: WhisperEngine) -> None:
    windows = [HELLO, TRANSFER, Window(np.zeros(samples(3), np.int16))]
    exact = toy_engine.decode(windows, ENGLISH)
    for measured, estimated in zip(exact, toy_engine.decode(windows, replace(ENGLISH, word_times=False)), strict=True):
        assert [w.word for w in estimated.words] == [w.word for w in measured.words]
        assert estimated.stats == measured.stats
        assert all(0 < w.probability <= 1 for w in estimated.words)
        for word, other in zip(estimated.words, measured.words, strict=True):
            assert word.start == pytest.approx(other.start, abs=0.7)


def test_without_word_times_nothing_is_aligned(toy_engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WhisperEngine, "_align", lambda *_: pytest.fail("aligned"))
    (decoded,) = toy_engine.decode([HELLO], replace(ENGLISH, word_times=False))
    assert said(decoded) == "hello please transfer my account"


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.floats(0, 35).map(lambda t: round(t / 0.02)), st.sampled_from(TEXTS)), max_size=12),
    st.floats(0, 30),
)
def test_estimated_times_are_in_order_inside_the_window_and_lose_no_word(
    said: list[int | str], duration_s: float
) -> None:
    tokenizer = english_tokenizer()
    tokens: list[int] = []
    for piece in said:
        tokens += [tokenizer.timestamp_begin + piece] if isinstance(piece, int) else tokenizer.encode(piece)
    hypothesis = Hypothesis.parse(tokens, tokenizer)
    words = list(estimated_words(hypothesis, tokenizer, duration_s, 0.5))
    assert "".join(w.word for w in words) == tokenizer.decode(hypothesis.text)
    times = [t for w in words for t in (w.start, w.end)]
    assert all(0 <= t <= duration_s + 0.0005 for t in times)
    assert all(before <= after for before, after in pairwise(times))


def test_a_span_of_text_keeps_to_its_times(toy_engine: WhisperEngine) -> None:
    tokenizer = english_tokenizer()
    at = tokenizer.timestamp_begin
    tokens = [at, *tokenizer.encode(" one two"), at + 50, at + 200, *tokenizer.encode(" three"), at + 300]
    words = list(estimated_words(Hypothesis.parse(tokens, tokenizer), tokenizer, 10.0, 0.5))
    assert [(w.word, w.start, w.end) for w in words] == [
        (" one", 0.0, 0.5),
        (" two", 0.5, 1.0),
        (" three", 4.0, 6.0),
    ]


# -- how it searches


def test_languages_to_choose_from(toy_engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [d.language for d in toy_engine.decode([HELLO, HABARI], DecodeOptions(languages=("sw", "en")))] == [
        "en",
        "sw",
    ]
    (decoded,) = toy_engine.decode([HELLO], DecodeOptions(languages=("sw", "fr")))
    assert decoded.language in ("sw", "fr")
    (decoded,) = toy_engine.decode([HELLO], DecodeOptions(languages=("sw",)))
    assert (decoded.language, decoded.language_probability) == ("sw", 1.0)  # nothing to detect
    with pytest.raises(InvalidInput, match="klingon"):
        toy_engine.decode([HELLO], DecodeOptions(languages=("en", "klingon")))


def test_no_ngram_is_said_twice_where_that_is_forbidden(toy_engine: WhisperEngine) -> None:
    digits = cut("en_digits.flac", 0.0, 9.0)
    for n in (1, 2):
        (decoded,) = toy_engine.decode([digits], replace(ENGLISH, no_repeat_ngram=n, beam_size=2))
        words = [w.word for w in decoded.words]
        ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        assert len(set(ngrams)) == len(ngrams) > 0


def test_sampling_is_not_always_the_same(toy_engine: WhisperEngine) -> None:
    hot = replace(ENGLISH, temperature=1.0)
    assert len({said(toy_engine.decode([TRANSFER], hot)[0]) for _ in range(12)}) > 1


def test_it_runs_as_many_decodes_side_by_side_as_it_has_threads(toy_engine: WhisperEngine) -> None:
    assert toy_engine.capabilities.parallel == 2
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda w: toy_engine.decode([w], ENGLISH)[0], (HELLO, HELLO))
    assert said(first) == said(second) == "hello please transfer my account"


# -- what it refuses


def test_a_window_of_30_s_is_the_longest(toy_engine: WhisperEngine) -> None:
    longest = np.resize(recording("en_long_50s.flac"), samples(30.0))
    (decoded,) = toy_engine.decode([Window(longest)], ENGLISH)
    assert decoded.words
    with pytest.raises(InvalidInput, match="at most 30 s"):
        toy_engine.decode([HELLO, Window(np.append(longest, longest[:1]))], ENGLISH)


@pytest.mark.parametrize("options", [DecodeOptions(language="klingon"), DecodeOptions("en", task="sing")])
def test_a_language_or_task_that_does_not_exist(options: DecodeOptions, toy_engine: WhisperEngine) -> None:
    with pytest.raises(InvalidInput, match=r"klingon|sing"):
        toy_engine.decode([HELLO], options)


# -- models


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("model", ["/no/such/folder", "./no/such/folder"])
def test_a_folder_that_is_nowhere_is_said_to_be_at_once(model: str, download: bool) -> None:
    with pytest.raises(ModelMissing, match="no folder") as caught:
        load(EngineSpec("whisper", model, "/nowhere/models", download=download))
    assert repr(model) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("model", ["smal", "no such model", ""])
def test_an_unknown_name_is_answered_with_the_known_ones(model: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(EngineSpec("whisper", model, "/nowhere/models", download=True))
    assert {"tiny", "small", "large-v3"} <= set(caught.value.hint.replace(",", " ").split())
    assert model != "smal" or "'small' is the nearest" in str(caught.value)


def test_a_known_model_that_is_not_here_is_not_fetched_unasked() -> None:
    began = time.monotonic()
    with pytest.raises(ModelMissing, match="not on this machine") as caught:
        load(spec("small"))
    assert time.monotonic() - began < QUICK_S
    assert "callreel models pull small" in caught.value.hint


@pytest.mark.parametrize("name", ["model.bin", "tokenizer.json", "vocabulary.json"])
@pytest.mark.parametrize("harm", ["missing", "broken"])
def test_a_broken_folder_is_said_to_be_at_once(name: str, harm: str, toy_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy_model, folder)
    (folder / name).unlink()
    if harm == "broken":
        (folder / name).write_text("{nonsense")
    began = time.monotonic()
    with pytest.raises(ModelMissing, match=str(folder)):
        load(spec(folder))
    assert time.monotonic() - began < QUICK_S  # in particular, nothing was asked of the hub


def test_an_empty_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"model\.bin and config\.json and tokenizer\.json and vocabulary\.json"):
        load(spec(tmp_path))


def test_the_card_says_what_the_weights_want(tmp_path: Path) -> None:
    fields = {"min_window_s": 4, "max_window_s": 12.5, "languages": ["sw"], "title": "Ours", "later": 1}
    (tmp_path / "callreel.json").write_text(json.dumps(fields))
    assert ModelCard.read(tmp_path) == ModelCard(4.0, 12.5, ("sw",), "Ours")


def test_without_a_card_they_are_taken_for_released_ones(tmp_path: Path) -> None:
    assert ModelCard.read(tmp_path) == ModelCard(min_window_s=10.0, max_window_s=30.0, languages=())


@pytest.mark.parametrize(
    "card", ["{nonsense", '{"max_window_s": 31}', '{"max_window_s": 0}', '{"min_window_s": -1}', '{"languages": "en"}']
)
def test_a_card_that_cannot_be_meant(card: str, toy_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy_model, folder)
    (folder / "callreel.json").write_text(card)
    with pytest.raises(ModelMissing, match=r"callreel\.json"):
        load(spec(folder))


def test_the_floor_can_be_set(toy_model: Path) -> None:
    assert load(spec(toy_model, min_window_s=2.0)).capabilities.min_window_s == 2.0
    too_long = load(spec(toy_model, min_window_s=40.0))
    assert too_long.capabilities.min_window_s == 30.0
    assert too_long.decode([HELLO], ENGLISH)[0].language == "en"


def test_a_model_is_called_as_its_folder_is(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_model)
    assert load(spec(".")).model == "whisper-toy"
