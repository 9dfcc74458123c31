from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from callreel.engines.languages import NAMES, code_of
from callreel.errors import InvalidInput


def test_they_are_whispers() -> None:
    assert set(NAMES) == set(_LANGUAGE_CODES)
    assert len(set(NAMES.values())) == len(NAMES)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("English", "en"),
        ("swahili", "sw"),
        ("pt-BR", "pt"),
        ("en_US", "en"),
        ("yue", "yue"),
        ("Haitian Creole", "ht"),
    ],
)
def test_by_code_and_by_name(said: str, code: str) -> None:
    assert code_of(said) == code


def test_an_unknown_one_gets_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="'swahili' is the nearest"):
        code_of("swahilli")
    with pytest.raises(InvalidInput, match="no language 'klingonese'"):
        code_of("klingonese")
