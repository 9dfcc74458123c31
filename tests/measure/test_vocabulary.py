from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from tokenizers import Tokenizer as Tokens

from callreel.measure.synthetic import read_synthetic, write_weights
from callreel.measure.vocabulary import N_TEXT, tokens, write_vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary"))


def test_it_has_the_shape_of_a_multilingual_whisper(folder: Path, toy: Path) -> None:
    real, made = (json.loads((path / "vocabulary.json").read_text()) for path in (toy, folder))
    assert len(set(made)) == len(made) == len(real)
    assert set(made[N_TEXT:]) == set(real[N_TEXT:])
    for token in ("<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|notimestamps|>", "<|30.00|>"):
        assert made.index(token) == real.index(token)


def test_both_files_have_the_same_ids(folder: Path) -> None:
    tokenizer, made = Tokens.from_file(str(folder / "tokenizer.json")), tokens()
    for i in (0, 255, 256, N_TEXT - 1, N_TEXT, N_TEXT + 5, len(made) - 1):
        assert tokenizer.token_to_id(made[i]) == i
    assert tokenizer.get_vocab_size() == len(made)


def test_text_goes_in_and_comes_out(folder: Path) -> None:
    tokenizer = Tokenizer(Tokens.from_file(str(folder / "tokenizer.json")), True, task="transcribe", language="en")
    for text in (" Any text, even ünïcode.", "", " a"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.timestamp_begin == tokens().index("<|0.00|>")


def test_its_words_do_not_look_like_a_loop() -> None:
    text = "".join(tokens()[256:356]).encode()
    assert len(text) / len(zlib.compress(text)) < 2.2


def test_synthetic_weights_say_its_words(folder: Path, tmp_path: Path) -> None:
    weights = write_weights("tiny", tmp_path / "tiny", tokenizer_from=folder, chain=5)
    model = WhisperModel(str(weights), device="cpu", compute_type="int8", cpu_threads=1)
    noise = np.random.default_rng(0).standard_normal(32_000, np.float32) * 0.1
    (segment,) = model.transcribe(noise, beam_size=1, language="en")[0]
    said = tokens()
    assert segment.text.split() == [said[i][1:] for i in read_synthetic(weights).chain]
