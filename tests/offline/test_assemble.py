from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from callreel.engines.base import Decoded
from callreel.offline.assemble import MAX_SEGMENT_S, PAUSE_S, Merger, TrackAssembler, groups_of_words, segment_of
from callreel.text import DecodeStats, Segment, Word

SURE = DecodeStats(tokens=3, avg_logprob=-0.2, no_speech_prob=0.01)
INVENTED = DecodeStats(tokens=3, avg_logprob=-1.3, no_speech_prob=0.9)


def words(*said: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(f" {word}", start, end) for word, start, end in said)


def assemble(
    parts: Iterable[tuple[float, Decoded]], *, language: str | None, word_times: bool = True
) -> Iterator[Segment]:
    """Windows as long as what they say, and a little longer."""
    assembler = TrackAssembler("mix", word_times=word_times)
    for start_s, decoded in parts:
        end_s = start_s + max((word.end for word in decoded.words), default=0.0) + 0.1
        yield from assembler.add(start_s, end_s, decoded, language)


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
    texts = [segment.text for segment in assemble([(0.0, Decoded(said, "en"))], language="en")]
    assert texts == ["Hello there.", "How", "are you?"]


def test_segments_carry_the_clock_of_the_recording() -> None:
    parts = [
        (10.0, Decoded(words(("one", 0.5, 1.0), ("two", 1.1, 1.5)), "en", stats=SURE)),
        (20.25, Decoded(words(("three", 0.0, 0.5)), "en", stats=SURE)),
    ]
    first, second = assemble(parts, language="en")
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
    segments = list(assemble(parts, language="en"))
    assert [s.seq for s in segments] == list(range(len(segments)))
    times = [t for s in segments for t in (s.start, s.end)]
    assert times == sorted(times)
    # Loops and echoes aside, all that was said is there.
    assert {w.word for s in segments for w in s.words} == {w.word for said in windows for w in said}
    for segment in segments:
        assert segment.start == segment.words[0].start
        assert segment.end == segment.words[-1].end


def test_what_whisper_invented_is_dropped() -> None:
    said = words(("Thanks", 0.0, 0.5), ("for", 0.5, 0.7), ("watching!", 0.7, 1.2))
    parts = [(0.0, Decoded(said, "en", stats=INVENTED)), (5.0, Decoded(said, "en", stats=SURE))]
    (kept,) = assemble(parts, language="en")
    assert (kept.start, kept.seq) == (5.0, 0)


def test_a_window_without_words_is_no_segment() -> None:
    assert list(assemble([(0.0, Decoded()), (9.0, Decoded(stats=SURE))], language=None)) == []


def test_a_segment_of_a_live_stream_keeps_its_epoch() -> None:
    segment = segment_of(words(("yes", 1.0, 1.2)), track="caller", seq=7, language="sw", epoch=3)
    assert (segment.track, segment.seq, segment.epoch, segment.language) == ("caller", 7, 3, "sw")
    assert segment.decode == DecodeStats()


@st.composite
def anything(draw: st.DrawFn) -> Decoded:
    """What a broken engine may say: times that run backwards, leave the window, are no times of speech."""
    times = st.floats(-5.0, 40.0)
    said = draw(st.lists(st.tuples(st.sampled_from([" no", " no.", " thank", " you.", ""]), times, times), max_size=20))
    stats = DecodeStats(
        avg_logprob=draw(st.none() | st.floats(-3, 0)), no_speech_prob=draw(st.none() | st.floats(0, 1))
    )
    return Decoded(tuple(Word(text, start, end) for text, start, end in said), "en", stats=stats)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 30.0), anything()), max_size=6))
def test_segments_never_overlap_whatever_the_engine_says(windows: list[tuple[float, float, Decoded]]) -> None:
    assembler, at, found = TrackAssembler("mix"), 0.0, list[Segment]()
    for pause_s, length_s, decoded in windows:
        start_s, at = at + pause_s, at + pause_s + length_s
        new = list(assembler.add(start_s, at, decoded, "en"))
        assert all(start_s - 0.001 <= w.start <= w.end <= at + 0.001 for s in new for w in s.words)
        found += new
    times = [t for s in found for w in s.words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert [s.seq for s in found] == list(range(len(found)))
    assert all(s.text for s in found)


def test_without_word_times_the_segments_keep_theirs() -> None:
    parts = [(10.0, Decoded(words(("Hello", 0.0, 0.4), ("there.", 0.4, 0.8), ("Yes", 2.0, 2.2)), "en"))]
    timed, untimed = (list(assemble(parts, language="en", word_times=kept)) for kept in (True, False))
    assert [(s.start, s.end, s.text) for s in untimed] == [(s.start, s.end, s.text) for s in timed]
    assert [(s.start, s.end) for s in untimed] == [(10.0, 10.8), (12.0, 12.2)]
    assert all(s.words == () for s in untimed)


def test_who_is_on_a_track_speaks_its_segments() -> None:
    decoded = Decoded(words(("Hello", 0.0, 0.4)), "en")
    (segment,) = TrackAssembler("channel-1", speaker="agent").add(3.0, 4.0, decoded, "en")
    assert (segment.track, segment.speaker) == ("channel-1", "agent")


@given(st.data(), st.integers(1, 4))
def test_tracks_are_merged_by_time_as_soon_as_it_is_certain(data: st.DataObject, n_tracks: int) -> None:
    windows = {  # of each track: when its windows begin, and its segments in each
        track: data.draw(st.lists(st.lists(st.integers(0, 9), max_size=3).map(sorted), max_size=4))
        for track in range(n_tracks)
    }
    merger, found = Merger(n_tracks), list[Segment]()
    order = data.draw(st.permutations([track for track, parts in windows.items() for _ in parts]))
    done, seq = dict.fromkeys(windows, 0), dict.fromkeys(windows, 0)

    def next_s(track: int) -> float:
        return 10.0 * done[track] if done[track] < len(windows[track]) else float("inf")

    for track in windows:
        found += merger.add(track, (), next_s(track))
    for track in order:
        starts = [10.0 * done[track] + tenth for tenth in windows[track][done[track]]]
        segments = [
            segment_of(words(("x", t, t + 0.1)), track=str(track), seq=i, language=None)
            for i, t in enumerate(starts, seq[track])
        ]
        done[track] += 1
        seq[track] += len(segments)
        found += merger.add(track, segments, next_s(track))
        certain_s = min(next_s(track) for track in windows)
        told = sum(10.0 * w + tenth < certain_s for t in windows for w in range(done[t]) for tenth in windows[t][w])
        assert len(found) >= told
    keys = [(s.start, int(s.track), s.seq) for s in found]
    assert keys == sorted(keys)
    assert len(keys) == sum(len(part) for parts in windows.values() for part in parts)
