from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctranslate2 import StorageView
from faster_whisper import WhisperModel
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.whisper import load
from callreel.errors import InvalidInput, ModelMissing
from callreel.measure import synthetic
from callreel.measure.synthetic import MANIFEST, SHAPES, Shape, Synthetic, read_synthetic, write_weights

ROWS = 4


@pytest.fixture(scope="module")
def model(tiny: Path) -> WhisperModel:
    return WhisperModel(str(tiny), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.fixture(scope="module")
def encoded(model: WhisperModel) -> StorageView:
    noise = np.random.default_rng(0).standard_normal((ROWS, 32_000), np.float32) * 0.1
    return model.encode(np.stack([model.feature_extractor(row, padding=0) for row in noise]))


def start_tokens(model: WhisperModel, *more: str) -> list[int]:
    names = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>", *more)
    return [model.hf_tokenizer.token_to_id(name) for name in names]


def say(model: WhisperModel, encoded: StorageView, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    return [r.sequences_ids[0] for r in model.model.generate(encoded, prompts, max_length=448, **options)]


@settings(max_examples=8, deadline=None)
@given(n_words=st.tuples(*[st.integers(0, 60)] * ROWS), prompt_length=st.integers(0, 100), seed=st.integers(0, 9))
def test_each_row_says_as_many_words_as_it_is_told(
    tiny: Path, model: WhisperModel, encoded: StorageView, n_words: tuple[int, ...], prompt_length: int, seed: int
) -> None:
    weights = read_synthetic(tiny)
    text = np.random.default_rng(seed).integers(300, 50_000, (ROWS, prompt_length)).tolist()
    before = [[model.hf_tokenizer.token_to_id("<|startofprev|>"), *row] if row else [] for row in text]
    prompts = [[*b, *start_tokens(model), *weights.prefix(n)] for b, n in zip(before, n_words, strict=True)]
    said = say(model, encoded, prompts, beam_size=1)
    assert said == [weights.words(n) for n in n_words]


def test_the_longest_chain_the_decoder_has_room_for(tiny: Path, model: WhisperModel, encoded: StorageView) -> None:
    weights = read_synthetic(tiny)
    assert len(weights.chain) == 224
    prompts = [start_tokens(model) + weights.prefix(n) for n in (223, 0, 1, 223)]
    assert [len(ids) for ids in say(model, encoded, prompts, beam_size=1)] == [223, 0, 1, 223]


@pytest.mark.parametrize(
    "options", [{"beam_size": 5}, {"beam_size": 1, "sampling_temperature": 1.0, "sampling_topk": 0}]
)
def test_beams_and_temperature_change_nothing(
    tiny: Path, model: WhisperModel, encoded: StorageView, options: dict[str, Any]
) -> None:
    weights = read_synthetic(tiny)
    prompts = [start_tokens(model) + weights.prefix(n) for n in (1, 2, 7, 20)]
    assert say(model, encoded, prompts, **options) == [weights.words(n) for n in (1, 2, 7, 20)]


def test_any_other_token_leads_to_the_first_word(tiny: Path, model: WhisperModel, encoded: StorageView) -> None:
    weights = read_synthetic(tiny)
    odd = [model.hf_tokenizer.token_to_id(token) for token in ("<|3.20|>", "!", "Ġfriendship", "<|0.00|>")]
    assert [ids[:3] for ids in say(model, encoded, [[*start_tokens(model), token] for token in odd], beam_size=1)] == [
        [token, *weights.chain[:2]] for token in odd
    ]


def test_faster_whisper_transcribes_with_it(model: WhisperModel, tmp_path: Path, toy: Path) -> None:
    short = WhisperModel(
        str(write_weights("tiny", tmp_path / "short", tokenizer_from=toy, chain=12, quantization=None)), cpu_threads=1
    )
    noise = np.random.default_rng(0).standard_normal(48_000, np.float32) * 0.1
    segments, info = short.transcribe(noise, beam_size=1, word_timestamps=True)
    (segment,) = segments
    assert info.language == "en"
    assert len(segment.words or ()) == 12
    assert segment.temperature == 0.0


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> Iterator[Path]:
    """What sets large-v3 apart, 128 mel bands and a language more, without its size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SHAPES, "thin", Shape(384, 1, 6, n_mels=128, cantonese=True))
        yield write_weights("thin", tmp_path_factory.mktemp("thin") / "thin", tokenizer_from=toy, chain=20)


def test_large_v3_has_its_mel_bands_and_its_vocabulary(thin: Path, toy: Path) -> None:
    assert (SHAPES["large-v3"].n_mels, SHAPES["large-v3"].cantonese) == (128, True)
    model = WhisperModel(str(thin), device="cpu", compute_type="int8", cpu_threads=1)
    assert (model.model.n_mels, model.feature_extractor.mel_filters.shape[0]) == (128, 128)
    vocabulary = json.loads((thin / "vocabulary.json").read_text())
    assert len(vocabulary) == model.hf_tokenizer.get_vocab_size() == 51_866
    assert all(model.hf_tokenizer.token_to_id(token) == i for i, token in enumerate(vocabulary) if token)
    toys = json.loads((toy / "vocabulary.json").read_text())
    assert set(vocabulary) - set(toys) == {"<|yue|>"}


def test_our_engine_says_the_chain_of_any_shape(thin: Path) -> None:
    engine = load(EngineSpec("whisper", str(thin), "/nowhere", min_window_s=5.0))
    noise = Window((np.random.default_rng(0).standard_normal(48_000) * 3000).astype(np.int16))
    for options in (DecodeOptions(word_times=False), DecodeOptions("en"), DecodeOptions("yue", beam_size=2)):
        (decoded,) = engine.decode([noise], options)
        assert decoded.language == (options.language or "en")
        assert len(decoded.words) == 20


def test_words_outside_the_chain_are_refused(tiny: Path) -> None:
    weights = read_synthetic(tiny)
    for n_words in (-1, 225):
        with pytest.raises(InvalidInput, match="0 to 224 words"):
            weights.prefix(n_words)


def test_a_finished_folder_is_left_alone(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Synthetic] = []
    spec = synthetic._spec
    monkeypatch.setattr(synthetic, "_spec", lambda what, *rest: built.append(what) or spec(what, *rest))
    folder = tmp_path / "weights"
    for chain in (3, 3, 4):
        assert write_weights("tiny", folder, tokenizer_from=toy, chain=chain) == folder
    assert [len(what.chain) for what in built] == [3, 4]
    assert len(read_synthetic(folder).chain) == 4
    assert sorted(path.name for path in folder.parent.iterdir()) == ["weights"]


def test_a_broken_write_leaves_nothing(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic.WhisperSpec, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_weights("tiny", tmp_path / "weights", tokenizer_from=toy)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_not_replaced(tmp_path: Path, toy: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    with pytest.raises(InvalidInput, match="something else"):
        write_weights("tiny", tmp_path, tokenizer_from=toy)
    assert (tmp_path / "letter.txt").read_text() == "dear all"


def test_what_cannot_be_written_is_said(tmp_path: Path, toy: Path) -> None:
    with pytest.raises(InvalidInput, match="tiny, base, small, medium, large-v3"):
        write_weights("huge", tmp_path / "huge", tokenizer_from=toy)
    with pytest.raises(InvalidInput, match="1 to 224"):
        write_weights("tiny", tmp_path / "long", tokenizer_from=toy, chain=225)
    for tokens, complaint in ((["Ġthe"], "multilingual"), (["<|transcribe|>", "<|endoftext|>"], "whole words")):
        (tmp_path / "vocabulary.json").write_text(json.dumps(tokens))
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(InvalidInput, match=complaint):
            write_weights("tiny", tmp_path / "odd", tokenizer_from=tmp_path)


@pytest.mark.parametrize("manifest", [None, "", "{}", '{"size": "tiny", "chain": [1], "older": true}'])
def test_a_folder_without_synthetic_weights(tmp_path: Path, manifest: str | None) -> None:
    if manifest is not None:
        (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(ModelMissing, match="write_weights"):
        read_synthetic(tmp_path)
