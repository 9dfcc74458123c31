from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.storage.fulltext import BREAK, indexed, plain


@pytest.mark.parametrize("text", ["Grüße aus Köln", "Привет, мир", "habari za asubuhi", "안녕하세요 세계", ""])
def test_text_with_spaces_between_its_words_is_taken_as_it_is(text: str) -> None:
    assert indexed(text) == text


@pytest.mark.parametrize("text", ["你好", "こんにちは", "カタカナ", "สวัสดี", "𠀋"])
def test_text_without_spaces_is_a_word_a_character(text: str) -> None:
    assert indexed(text).split(BREAK)[1::2] == list(text)


def test_controls_and_half_characters_are_spaces() -> None:
    assert plain("a\x00b\x02c\ud800d\ne") == "a b c d e"


@given(st.text())
def test_only_breaks_are_put_in(text: str) -> None:
    assert len(plain(text)) == len(text)
    assert indexed(text).replace(BREAK, "") == plain(text).replace(BREAK, "")
