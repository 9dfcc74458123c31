from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.text import Segment, Word
from callreel.transcripts.formats.base import plain
from callreel.transcripts.formats.words import may_break, split_words, timed_words, width
from tests.transcripts.formats.samples import said

HEARD = said("we moved the launch to May", 10.0)


def times(segment: Segment) -> list[tuple[str, float, float]]:
    return [(w.word, pytest.approx(w.start), pytest.approx(w.end)) for w in timed_words(segment)]


def test_words_of_the_engine_are_taken_as_they_are() -> None:
    assert timed_words(HEARD) == list(HEARD.words)


def test_without_word_times_words_share_the_segments_time_by_length() -> None:
    segment = Segment("caller", 0, 2.0, 4.0, "one three")
    assert times(segment) == [("one", 2.0, 2.75), (" three", 2.75, 4.0)]


def test_an_edited_word_takes_the_time_of_what_it_replaces() -> None:
    edited = replace(HEARD, text="we moved the lunch to May")
    assert times(edited)[3] == (" lunch", 10.9, 11.2)
    assert [w.start for w in timed_words(edited)] == [w.start for w in HEARD.words]


def test_added_words_take_what_time_there_is_between_their_neighbours() -> None:
    with_pause = replace(HEARD, words=(*HEARD.words[:3], *(w.shifted(1.0) for w in HEARD.words[3:])))
    edited = replace(with_pause, text="we moved the big old launch to May")
    assert times(edited)[3:5] == [(" big", 10.9, 11.4), (" old", 11.4, 11.9)]


def test_removed_words_leave_the_others_where_they_were() -> None:
    assert times(replace(HEARD, text="moved May")) == [("moved", 10.3, 10.6), (" May", 11.5, 11.8)]


def test_case_and_punctuation_do_not_make_another_word() -> None:
    assert [w.start for w in timed_words(replace(HEARD, text="We moved: the launch, to May!"))] == [
        w.start for w in HEARD.words
    ]


def test_times_never_run_back() -> None:
    dirty = replace(HEARD, text="a b c", words=(Word("a", 5, 9), Word(" b", 4, 4.5), Word(" c", 6, 5)))
    assert times(dirty) == [("a", 5, 5), (" b", 5, 5), (" c", 6, 6)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one  two", ["one", " two"]),
        ("", []),
        ("你好，世界。", ["你", "好，", "世", "界。"]),
        ("「はい」とスーパー", ["「は", "い」", "と", "スー", "パー"]),
        ("用GPU跑 once", ["用", "GPU", "跑", " once"]),
        ("안녕 세상", ["안녕", " 세상"]),  # Korean writes spaces
        ("สวัสดีครับ", ["สวัสดีครับ"]),
    ],
)
def test_where_a_line_may_break(text: str, words: list[str]) -> None:
    assert split_words(plain(text)) == words


def test_only_the_engine_knows_the_words_of_thai() -> None:
    assert may_break("สวัสดี", "ครับ")
    assert not may_break("ส", "ั")
    assert not may_break("don", "'t") and not may_break("well", "-known")


def test_wide_characters_take_two_columns_and_accents_none() -> None:
    assert (width("abc"), width("世界"), width("e\u0301"), width("é")) == (3, 4, 1, 1)


@given(st.text(), st.lists(st.tuples(st.text(max_size=5), st.floats(0, 50), st.floats(0, 50)), max_size=8))
def test_any_text_comes_out_whole_and_in_order(text: str, heard: list[tuple[str, float, float]]) -> None:
    segment = Segment("caller", 0, 1.0, 9.0, text, tuple(Word(*word) for word in heard))
    words = timed_words(segment)
    assert "".join(w.word for w in words) == plain(text)
    assert all(w.word.strip() for w in words)
    assert all(a.start <= a.end <= b.start <= b.end for a, b in pairwise(words))
