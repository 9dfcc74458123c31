from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.engines.base import Decoded
from callreel.offline.assemble import segment_of
from callreel.offline.repeats import is_echo, without_loops
from callreel.text import DecodeStats, Segment, Word


def spoken(text: str, word_s: float = 0.3) -> Decoded:
    return Decoded(tuple(Word(f" {w}", i * word_s, (i + 1) * word_s) for i, w in enumerate(text.split())), "en")


def cleaned(text: str, word_s: float = 0.3) -> str:
    return "".join(w.word for w in without_loops(spoken(text, word_s))).strip()


@pytest.mark.parametrize(
    ("heard", "kept"),
    [
        ("so " + "thank you. " * 20 + "bye", "so thank you. bye"),
        ("you " * 60, "you"),
        ("please call back later today " * 6, "please call back later today"),
        ("well " + "I think, " * 30, "well I think,"),
    ],
)
def test_a_loop_is_said_once(heard: str, kept: str) -> None:
    assert cleaned(heard) == kept


@pytest.mark.parametrize(
    "heard",
    [
        "no no no no no",
        "my number is seven seven seven zero zero zero two",
        "yes yes yes yes yes yes I know",
        "very very very good",
        "I said call me, call me, call me tomorrow",
        "",
    ],
)
def test_what_people_repeat_stays(heard: str) -> None:
    assert cleaned(heard) == heard


@pytest.mark.parametrize(
    ("heard", "kept"),
    [
        ("nye" + "kundu" * 40, "nyekundu"),
        ("哈哈哈哈哈哈哈哈哈哈", "哈"),
        ("hahahaha", "hahahaha"),
        ("1000000000", "1000000000"),
        ("Mississippi", "Mississippi"),
    ],
)
def test_a_word_that_does_not_end_is_a_loop_too(heard: str, kept: str) -> None:
    assert cleaned(heard) == kept


def test_what_nobody_can_say_so_fast_is_a_loop() -> None:
    assert cleaned("thank you thank you thank you thank you", word_s=0.01) == "thank you"


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=60), st.sampled_from([0.0, 0.01, 0.3]))
def test_nothing_is_made_up_and_no_word_is_lost(said: list[str], word_s: float) -> None:
    decoded = spoken(" ".join(said), word_s)
    kept = without_loops(decoded)
    assert set(kept) <= set(decoded.words)
    assert [w.start for w in kept] == sorted(w.start for w in kept)
    assert {w.word for w in kept} == {w.word for w in decoded.words}
    assert kept[:1] == decoded.words[:1]


@given(st.lists(st.sampled_from(["one", "two", "three", "four", "five"]), min_size=1, max_size=6, unique=True))
def test_the_phrase_of_a_loop_is_found_whatever_it_is(phrase: list[str]) -> None:
    assert cleaned(" ".join(phrase * 30)) == " ".join(phrase)


def test_an_echo_is_the_same_again_with_nothing_that_speaks_for_it() -> None:
    def segment(text: str, start: float, stats: DecodeStats, word_s: float = 0.3) -> Segment:
        words = [w.shifted(start) for w in spoken(text, word_s).words]
        return segment_of(words, track="mix", seq=0, language="en", decode=stats)

    sure, unsure = DecodeStats(avg_logprob=-0.2, no_speech_prob=0.1), DecodeStats(avg_logprob=-1.2, no_speech_prob=0.1)
    silent = DecodeStats(avg_logprob=-0.2, no_speech_prob=0.8)
    first = segment("Thank you.", 0, sure)
    assert is_echo(segment("thank you", 3, unsure), first)
    assert is_echo(segment("Thank you.", 3, silent), first)
    assert is_echo(segment("Thank you.", 3, sure, word_s=0.01), first)
    assert not is_echo(segment("Thank you.", 3, sure), first)  # said twice
    assert not is_echo(segment("Thank you.", 3, DecodeStats()), first)
    assert not is_echo(segment("Thanks.", 3, unsure), first)
    assert not is_echo(first, None)
