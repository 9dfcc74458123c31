"""Local agreement: what is committed, and how a new decode is joined to it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.audio.pcm import samples
from callreel.live.policy import EDGE_S, Agreement, Spoken, joint, placed
from callreel.text import Word


def spoken(text: str, at_s: float = 0.0, each_s: float = 0.4) -> list[Spoken]:
    """The words of `text`, each `each_s` long, one behind the other from `at_s` on."""
    return [
        Spoken(f" {word}", samples(at_s + i * each_s), samples(at_s + (i + 1) * each_s))
        for i, word in enumerate(text.split())
    ]


def said(words: list[Spoken]) -> str:
    return "".join(word.word for word in words).strip()


def test_words_are_placed_on_the_tracks_clock() -> None:
    assert placed([Word(" hi", 0.5, 1.0, 0.9)], 16_000) == [Spoken(" hi", 24_000, 32_000, 0.9)]


def test_a_word_is_committed_when_two_decodes_agree() -> None:
    agreement = Agreement(0)
    assert agreement.heard(spoken("my name his"), 0, samples(2)) == []
    assert said(agreement.heard(spoken("my name is robert"), 0, samples(3))) == "my name"
    assert said(agreement.guess) == "is robert"
    assert said(agreement.heard(spoken("is", at_s=0.8), samples(0.8), samples(3))) == "is"


def test_case_and_punctuation_do_not_hinder_agreement() -> None:
    agreement = Agreement(0)
    agreement.heard(spoken("well hello"), 0, samples(3))
    assert said(agreement.heard(spoken("Well, hello."), 0, samples(3))) == "Well, hello."


def test_words_at_the_windows_edge_wait() -> None:
    agreement = Agreement(0)
    agreement.heard(spoken("my name"), 0, samples(1.0))
    assert said(agreement.heard(spoken("my name"), 0, samples(1.0))) == "my"
    assert said(agreement.heard(spoken("my name"), 0, samples(0.8 + EDGE_S))) == "name"


def test_the_final_decode_is_committed_as_it_is() -> None:
    agreement = Agreement(0)
    agreement.heard(spoken("my name is"), 0, samples(3))
    agreement.heard(spoken("my name was"), 0, samples(3))
    assert said(agreement.heard_last(spoken("a name is robert"), 0)) == "is robert"
    assert said(agreement.committed) == "my name is robert"
    assert agreement.guess == []


def test_force_commits_the_guess_without_a_second_decode() -> None:
    agreement = Agreement(0)
    agreement.heard(spoken("one two three four"), 0, samples(5))
    assert said(agreement.force(samples(0.8))) == "one two"
    assert said(agreement.guess) == "three four"


def test_what_is_forced_is_no_excuse_to_drop_what_follows() -> None:
    """A word that straddles the place is neither committed nor behind what is."""
    agreement = Agreement(0)
    agreement.heard(spoken("one two three four"), 0, samples(5))
    agreement.force(samples(0.95))  # in the middle of "three"
    assert said(agreement.heard_last(spoken("three four", at_s=0.8), samples(0.8))) == "three four"


def test_the_same_word_twice_in_a_row_stays_twice() -> None:
    agreement = Agreement(0)
    for _ in range(2):
        agreement.heard(spoken("six five"), 0, samples(3))
    assert said(agreement.heard_last(spoken("six five five two"), 0)) == "five two"
    again = Agreement(0)
    for _ in range(2):
        again.heard(spoken("six five"), 0, samples(3))
    assert said(again.heard_last(spoken("five two", at_s=0.8), samples(0.8))) == "five two"


@pytest.mark.parametrize("moved_s", [-0.25, -0.15, 0.0, 0.15, 0.25])
@pytest.mark.parametrize("each_s", [0.15, 0.3, 0.5])
def test_a_decode_that_disagrees_about_times_neither_loses_nor_doubles(moved_s: float, each_s: float) -> None:
    tail = spoken("please send my new", at_s=1.0, each_s=each_s)
    words = spoken("please send my new invoice today", at_s=1.0 + moved_s, each_s=each_s)
    assert joint(tail, words, tail[-1].end, 0) == 4


def test_without_a_tail_the_middle_of_a_word_decides() -> None:
    words = spoken("one two three")
    assert joint([], words, 0, 0) == 0
    assert joint([], words, samples(0.7), 0) == 2
    assert joint([], words, samples(9), 0) == 3


def test_a_committed_word_that_the_new_decode_spells_otherwise_is_not_said_again() -> None:
    tail = spoken("we send the")
    assert joint(tail, spoken("we send a form"), tail[-1].end, 0) == 3


def test_a_committed_word_whose_end_came_too_late_swallows_nothing() -> None:
    tail = [*spoken("one two"), Spoken(" three", samples(0.8), samples(1.8))]  # drawn out over the pause
    assert joint(tail, spoken("one two three four"), tail[-1].end, 0) == 3


words_of = st.lists(st.sampled_from(["five", "six", "the", "please", "account"]), min_size=1, max_size=10)
shifts = st.floats(-0.06, 0.06)


@given(words_of, st.integers(0, 10), st.data())
def test_any_jitter_that_is_shorter_than_half_a_word_is_seen_through(
    words: list[str], known: int, data: st.DataObject
) -> None:
    tail = spoken(" ".join(words))[:known]
    heard = []
    for word in spoken(" ".join(words)):
        shift = samples(data.draw(shifts))
        heard.append(Spoken(word.word, max(0, word.start + shift), word.end + shift))
    until = tail[-1].end if tail else 0
    assert joint(tail, heard, until, 0) == len(tail)


@given(st.lists(st.tuples(words_of, st.floats(0, 20), st.floats(0.05, 0.6), st.booleans()), max_size=8))
def test_committed_words_never_change_and_never_overlap(decodes: list[tuple[list[str], float, float, bool]]) -> None:
    agreement = Agreement(0)
    before: list[Spoken] = []
    for words, at_s, each_s, force in decodes:
        heard = spoken(" ".join(words), at_s=at_s, each_s=each_s)
        agreement.heard(heard, samples(at_s), heard[-1].end)
        if force:
            agreement.force(heard[-1].middle)
        assert agreement.committed[: len(before)] == before
        before = list(agreement.committed)
        assert all(word.start <= word.end for word in before)
        assert all(a.end <= b.start for a, b in pairwise(before))
        assert agreement.committed_until >= (before[-1].end if before else 0)
