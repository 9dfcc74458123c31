from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.measure.wer import Alignment, compare, word_error_rate

words = st.lists(st.sampled_from(["the", "total", "is", "nine", "four", "two", "you"]), max_size=12)


@st.composite
def distinct_words(draw: st.DrawFn) -> list[str]:
    return [f"w{i}" for i in range(draw(st.integers(1, 30)))]


def test_case_and_punctuation_are_no_errors() -> None:
    assert word_error_rate("Hello, it's NINE!", "hello it's nine") == 0.0


def test_each_kind_of_error() -> None:
    found = compare("a b c d e f", "a x c e f g")
    assert found == Alignment(words=6, hits=4, substitutions=1, deletions=1, insertions=1, doubled=0)
    assert found.rate == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("hypothesis", "rate"), [("", 0.0), ("...", 0.0), ("hello", 1.0), ("hello hello hello hello", 1.0)]
)
def test_an_empty_reference(hypothesis: str, rate: float) -> None:
    assert word_error_rate("", hypothesis) == rate


@pytest.mark.parametrize(
    ("reference", "hypothesis", "doubled"),
    [
        ("the total is nine", "the total the total is nine", 2),
        ("the total is nine", "the the the total is nine", 2),
        ("the total is nine", "the total is nine nine", 1),
        ("nine nine is eighteen", "nine nine nine is eighteen", 1),
        ("nine nine is eighteen", "nine nine um is eighteen", 0),
        ("the total is nine", "the total um the total is nine", 0),
        ("the total is nine", "the total the sum is nine", 0),
        ("the total is nine", "so um the total the total is nine", 2),
        ("nine nine", "nine nine", 0),
    ],
)
def test_words_said_twice(reference: str, hypothesis: str, doubled: int) -> None:
    assert compare(reference, hypothesis).doubled == doubled


@given(words)
def test_a_text_is_itself(said: list[str]) -> None:
    assert compare(" ".join(said), " ".join(said)) == Alignment(len(said), len(said), 0, 0, 0, 0)


@given(words, words)
def test_counts_add_up(reference: list[str], hypothesis: list[str]) -> None:
    there, back = (compare(" ".join(a), " ".join(b)) for a, b in ((reference, hypothesis), (hypothesis, reference)))
    assert there.hits + there.substitutions + there.deletions == there.words == len(reference)
    assert there.hits + there.substitutions + there.insertions == len(hypothesis)
    assert 0 <= there.doubled <= there.insertions
    assert there.errors == back.errors <= max(len(reference), len(hypothesis))


@given(words, st.data())
def test_words_lost_are_deletions(reference: list[str], data: st.DataObject) -> None:
    kept = [word for word in reference if data.draw(st.booleans())]
    found = compare(" ".join(reference), " ".join(kept))
    assert (found.deletions, found.errors) == (len(reference) - len(kept),) * 2


@given(distinct_words(), st.data())
def test_a_doubled_run_is_found_whole(reference: list[str], data: st.DataObject) -> None:
    end = data.draw(st.integers(1, len(reference)))
    start = data.draw(st.integers(0, end - 1))
    found = compare(" ".join(reference), " ".join(reference[:end] + reference[start:]))
    assert found.doubled == found.errors == end - start
