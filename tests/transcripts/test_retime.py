from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callreel.text import Word, join_words
from callreel.transcripts.retime import retimed

START, END = 10.0, 12.0
SAID = (Word(" We", 10.0, 10.3, 0.9), Word(" meet", 10.4, 10.8, 0.8), Word(" Monday,", 11.0, 11.5, 0.7))


def times(text: str, words: tuple[Word, ...] = SAID) -> list[tuple[str, float, float]]:
    return [(w.word, w.start, w.end) for w in retimed(words, text, START, END)]


def test_words_that_stay_keep_their_times() -> None:
    assert times("We met Monday") == [("We", 10.0, 10.3), (" met", 10.4, 10.8), (" Monday", 11.0, 11.5)]


def test_case_and_punctuation_change_no_times() -> None:
    kept = retimed(SAID, "we MEET - Monday!", START, END)
    assert [(w.word, w.start, w.end, w.probability) for w in kept if w.word != " -"] == [
        ("we", 10.0, 10.3, 0.9),
        (" MEET", 10.4, 10.8, 0.8),
        (" Monday!", 11.0, 11.5, 0.7),
    ]


def test_words_share_the_span_of_those_they_replace() -> None:
    assert times("We all go Monday,") == [
        ("We", 10.0, 10.3),
        (" all", 10.4, 10.64),
        (" go", 10.64, 10.8),
        (" Monday,", 11.0, 11.5),
    ]


def test_words_put_in_get_the_time_between() -> None:
    assert times("We meet on Monday, then")[2:] == [
        (" on", 10.8, 11.0),
        (" Monday,", 11.0, 11.5),
        (" then", 11.5, 12.0),
    ]
    assert times("so We meet Monday,")[0] == ("so", 10.0, 10.0)


def test_text_without_spaces_is_taken_by_characters() -> None:
    said = (Word("你好", 10.0, 10.4), Word("世界", 10.4, 11.0))
    assert times("你好世界", said) == [("你好", 10.0, 10.4), ("世界", 10.4, 11.0)]
    assert times("你好新世", said) == [("你好", 10.0, 10.4), ("新", 10.4, 10.4), ("世", 10.4, 10.7)]
    assert times("你 好世界", said) == [("你", 10.0, 10.2), (" 好", 10.2, 10.4), ("世界", 10.4, 11.0)]


def test_without_times_there_are_no_words() -> None:
    assert retimed((), "Hello there", START, END) == ()
    assert retimed(SAID, "", START, END) == ()


vocabulary = st.sampled_from(["we", "meet", "Monday,", "on", "你好", "世", "à", "-", "no-one", "don't"])


@st.composite
def said(draw: st.DrawFn) -> tuple[Word, ...]:
    words = draw(st.lists(vocabulary, max_size=8))
    cuts = sorted(draw(st.lists(st.integers(0, 2000), min_size=2 * len(words), max_size=2 * len(words))))
    return tuple(
        Word(f" {word}", START + cuts[2 * i] / 1000, START + cuts[2 * i + 1] / 1000, 0.5)
        for i, word in enumerate(words)
    )


@given(words=said(), new=st.lists(vocabulary, max_size=8))
def test_times_rise_within_the_segment_and_no_letter_is_lost(words: tuple[Word, ...], new: list[str]) -> None:
    text = " ".join(new)
    found = retimed(words, text, START, END)
    if words:
        assert join_words(found) == text
    edges = [t for w in found for t in (w.start, w.end)]
    assert [START, *edges, END] == sorted([START, *edges, END])


@given(words=said())
def test_the_same_text_has_the_same_times(words: tuple[Word, ...]) -> None:
    found = retimed(words, " ".join(w.word.strip() for w in words), START, END)
    assert [(w.word.strip(), w.start, w.end, w.probability) for w in found] == [
        (w.word.strip(), w.start, w.end, w.probability) for w in words
    ]


@given(words=said(), at=st.integers(0, 8), put_in=vocabulary)
def test_putting_a_word_in_moves_no_other(words: tuple[Word, ...], at: int, put_in: str) -> None:
    text = [w.word.strip() for w in words]
    found = retimed(words, " ".join([*text[:at], put_in, *text[at:]]), START, END)
    spans = [(w.start, w.end) for w in found]
    kept = iter(spans)
    assert all(any(span == (w.start, w.end) for span in kept) for w in words) or put_in in text
