from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from callreel.engines.base import Decoded
from callreel.offline.assemble import MAX_SEGMENT_S, PAUSE_S, assemble, groups_of_words, is_invented, segment_of
from callreel.text import DecodeStats, Word

SURE = DecodeStats(tokens=3, avg_logprob=-0.2, no_speech_prob=0.01)
INVENTED = DecodeStats(tokens=3, avg_logprob=-1.3, no_speech_prob=0.9)


def words(*said: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(f" {word}", start, end) for word, start, end in said)


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    """Words in order of time, some with pauses between, some that end a sentence."""
    at, found = 0, []
    texts = st.sampled_from([" yes", " no.", " why?", "、", "好。"])
    for text, pause_ms, length_ms in draw(
        st.lists(st.tuples(texts, st.integers(0, 1_500), st.integers(0, 4_000)), max_size=30)
    ):
        start = at + pause_ms
        at = start + length_ms
        found.append(Word(text, start / 1000, at / 1000))
    return found


@given(spoken())
def test_groups_hold_every_word_once_and_end_where_they_should(said: list[Word]) -> None:
    groups = list(groups_of_words(said))
    assert [word for group in groups for word in group] == said
    assert all(groups)
    for group in groups:
        assert len(group) == 1 or group[-1].end - group[0].start <= MAX_SEGMENT_S
        for word, following in pairwise(group):
            assert following.start - word.end < PAUSE_S
            assert word.word[-1] not in ".?。"


@given(spoken())
def test_groups_are_not_cut_without_a_reason(said: list[Word]) -> None:
    for group, following in pairwise(groups_of_words(said)):
        pause = following[0].start - group[-1].end >= PAUSE_S
        full = following[0].end - group[0].start > MAX_SEGMENT_S
        assert pause or full or group[-1].word[-1] in ".?。"


def test_a_pause_and_the_end_of_a_sentence_end_a_segment() -> None:
    said = words(("Hello", 0.0, 0.4), ("there.", 0.4, 0.8), ("How", 0.9, 1.1), ("are", 1.7, 1.9), ("you?", 1.9, 2.2))
    texts = [segment.text for segment in assemble([(0.0, Decoded(said, "en"))], track="mix", language="en")]
    assert texts == ["Hello there.", "How", "are you?"]


def test_segments_carry_the_clock_of_the_recording() -> None:
    parts = [
        (10.0, Decoded(words(("one", 0.5, 1.0), ("two", 1.1, 1.5)), "en", stats=SURE)),
        (20.25, Decoded(words(("three", 0.0, 0.5)), "en", stats=SURE)),
    ]
    first, second = assemble(parts, track="mix", language="en")
    assert (first.start, first.end, first.text) == (10.5, 11.5, "one two")
    assert [(w.word, w.start, w.end) for w in first.words] == [(" one", 10.5, 11.0), (" two", 11.1, 11.5)]
    assert (second.start, second.end, second.text) == (20.25, 20.75, "three")
    assert [s.seq for s in (first, second)] == [0, 1]
    assert {s.track for s in (first, second)} == {"mix"}
    assert {s.language for s in (first, second)} == {"en"}
    assert all(s.completed for s in (first, second))
    assert first.decode == SURE


@given(st.lists(spoken(), max_size=4))
def test_segments_are_in_order_of_time(windows: list[list[Word]]) -> None:
    parts, at = [], 0.0
    for said in windows:
        parts.append((at, Decoded(tuple(said), "en")))
        at += said[-1].end if said else 1.0
    segments = list(assemble(parts, track="mix", language="en"))
    assert [s.seq for s in segments] == list(range(len(segments)))
    times = [t for s in segments for t in (s.start, s.end)]
    assert times == sorted(times)
    assert sum(len(s.words) for s in segments) == sum(map(len, windows))
    for segment in segments:
        assert segment.start == segment.words[0].start
        assert segment.end == segment.words[-1].end


def test_what_whisper_invented_is_dropped() -> None:
    said = words(("Thanks", 0.0, 0.5), ("for", 0.5, 0.7), ("watching!", 0.7, 1.2))
    parts = [(0.0, Decoded(said, "en", stats=INVENTED)), (5.0, Decoded(said, "en", stats=SURE))]
    (kept,) = assemble(parts, track="mix", language="en")
    assert (kept.start, kept.seq) == (5.0, 0)


def test_invented_takes_both_signs() -> None:
    assert is_invented(Decoded(stats=INVENTED))
    assert not is_invented(Decoded(stats=DecodeStats(avg_logprob=-0.3, no_speech_prob=0.9)))  # sure of its words
    assert not is_invented(Decoded(stats=DecodeStats(avg_logprob=-1.3, no_speech_prob=0.1)))  # mumbled, but spoken
    assert not is_invented(Decoded(stats=DecodeStats()))  # an engine that cannot say


def test_a_window_without_words_is_no_segment() -> None:
    assert list(assemble([(0.0, Decoded()), (9.0, Decoded(stats=SURE))], track="mix", language=None)) == []


def test_a_segment_of_a_live_stream_keeps_its_epoch() -> None:
    segment = segment_of(words(("yes", 1.0, 1.2)), track="caller", seq=7, language="sw", epoch=3)
    assert (segment.track, segment.seq, segment.epoch, segment.language) == ("caller", 7, 3, "sw")
    assert segment.decode == DecodeStats()
