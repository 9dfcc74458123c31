"""A made-up vocabulary of Whisper's shape, so that synthetic weights need no tokenizer of a real model."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

N_TEXT = 50_257  # tokens of text, as in every multilingual Whisper
N_TIMES = 1501  # 0.00 to 30.00 s in steps of 0.02
SPACE = "\u0120"  # what byte-level tokenizers write for a space
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
LANGUAGES = tuple(code for code in _LANGUAGE_CODES if code != "yue")  # the 99 of all sizes before large-v3
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)


def tokens() -> list[str]:
    """All tokens by id: the bytes, made-up words of 6 letters with their leading space, what is special, times.

    Neighbouring words are not alike: a text that compresses well would be taken for a loop of repeats.
    """
    syllables = ["".join(letters) for letters in product(CONSONANTS, VOWELS)]
    words = [SPACE + "".join(parts) for parts in product(syllables, repeat=3)]
    random.Random(0).shuffle(words)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    times = (f"<|{i * 0.02:.2f}|>" for i in range(N_TIMES))
    return [*alphabet, *words[: N_TEXT - len(alphabet)], *SPECIAL, *times]


def write_vocabulary(folder: Path) -> Path:
    """tokenizer.json and vocabulary.json in `folder`, as faster-whisper and CTranslate2 read them; returns `folder`."""
    everything = tokens()
    words = {token: i for i, token in enumerate(everything[:N_TEXT])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in everything[N_TEXT:]])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "vocabulary.json").write_text(json.dumps(everything))
    return folder
