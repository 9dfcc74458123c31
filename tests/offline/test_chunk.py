from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.audio.pcm import SAMPLE_RATE, Pcm, samples
from callreel.audio.vad import Speech
from callreel.offline.chunk import BREAK_S, PADDING_S, Chunk, chunks, duration_s, quietest

CANVAS: Pcm = np.random.default_rng(0).integers(-3000, 3000, samples(400)).astype(np.int16)


def spoken(*spans_s: tuple[float, float]) -> list[Speech]:
    return [Speech(samples(start), samples(end)) for start, end in spans_s]


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Speech], Pcm]:
    """Stretches of speech with pauses between them, some very long, and the audio they lie in."""
    pauses = st.one_of(st.integers(1, samples(0.5)), st.integers(1, samples(5)))
    lengths = st.one_of(st.integers(samples(0.2), samples(4)), st.integers(samples(0.2), samples(40)))
    at, speech = 0, []
    for pause, length in draw(st.lists(st.tuples(pauses, lengths), max_size=8)):
        start = at + pause
        at = start + length
        speech.append(Speech(start, at))
    return speech, CANVAS[: at + draw(st.integers(0, samples(1)))]


@settings(deadline=None)
@given(recordings(), st.floats(1.0, 30.0), st.floats(0.0, 1.0))
def test_chunks_hold_all_speech_in_order_and_not_too_long(
    recording: tuple[list[Speech], Pcm], max_s: float, min_share: float
) -> None:
    speech, pcm = recording
    found = chunks(speech, pcm, max_s=max_s, min_s=min_share * max_s)
    bounds = [at for chunk in found for at in (chunk.start, chunk.end)]
    assert bounds == sorted(bounds)
    assert all(0 <= c.start < c.end <= len(pcm) for c in found)
    assert all(c.end - c.start <= samples(max_s) for c in found)
    for stretch in speech:
        inside = [(max(c.start, stretch.start), min(c.end, stretch.end)) for c in found]
        covered = [(start, end) for start, end in inside if start < end]
        assert covered[0][0] == stretch.start
        assert covered[-1][1] == stretch.end
        assert all(before[1] == after[0] for before, after in pairwise(covered))


@settings(deadline=None)
@given(recordings(), st.floats(1.0, 30.0))
def test_cuts_lie_in_pauses_where_there_are_any(recording: tuple[list[Speech], Pcm], max_s: float) -> None:
    speech, pcm = recording
    found = chunks(speech, pcm, max_s=max_s)
    limit = samples(max_s) - 2 * samples(PADDING_S)
    for stretch in speech:
        if stretch.end - stretch.start <= limit:
            assert any(c.start <= stretch.start and stretch.end <= c.end for c in found)
    for before, after in pairwise(speech):
        if after.start - before.end >= samples(BREAK_S):
            assert not any(c.start < before.end and after.start < c.end for c in found)
    for chunk in found:
        assert any(chunk.start < s.end and s.start < chunk.end for s in speech)  # none is silence only


@given(recordings())
def test_the_same_recording_is_cut_the_same_way(recording: tuple[list[Speech], Pcm]) -> None:
    assert chunks(*recording, max_s=10.0) == chunks(*recording, max_s=10.0)


def test_no_speech_no_chunk() -> None:
    assert chunks([], CANVAS, max_s=30.0) == []


def test_a_blip_alone_is_nothing_and_in_speech_it_is_speech() -> None:
    assert chunks(spoken((10.0, 10.15)), CANVAS, max_s=30.0) == []
    assert chunks(spoken((1.0, 3.0), (10.0, 10.15), (20.0, 21.0)), CANVAS, max_s=30.0) == [
        Chunk(samples(0.8), samples(3.2)),
        Chunk(samples(19.8), samples(21.2)),
    ]
    assert chunks(spoken((1.0, 3.0), (4.0, 4.15)), CANVAS, max_s=30.0) == [Chunk(samples(0.8), samples(4.35))]


def test_what_fits_stays_together_with_a_little_around_it() -> None:
    assert chunks(spoken((1.0, 2.0), (2.5, 4.0)), CANVAS, max_s=30.0) == [Chunk(samples(0.8), samples(4.2))]


def test_the_padding_ends_at_the_ends_of_the_recording() -> None:
    assert chunks([Speech(100, 20_000)], CANVAS[:20_100], max_s=30.0) == [Chunk(0, 20_100)]


def test_a_long_pause_always_cuts() -> None:
    found = chunks(spoken((1.0, 2.0), (4.0, 5.0)), CANVAS, max_s=30.0)
    assert found == [Chunk(samples(0.8), samples(2.2)), Chunk(samples(3.8), samples(5.2))]


def test_what_would_be_filled_with_silence_keeps_its_own() -> None:
    speech = spoken((1.0, 2.0), (4.5, 6.0), (8.5, 9.5), (12.5, 13.0))
    found = chunks(speech, CANVAS, max_s=30.0, min_s=10.0)
    assert found == [Chunk(samples(0.8), samples(9.7)), Chunk(samples(12.3), samples(13.2))]
    assert len(chunks(speech, CANVAS, max_s=30.0)) == 4


def test_of_the_pauses_in_the_second_half_the_longest_is_taken() -> None:
    speech = spoken((0.0, 2.0), (3.5, 6.0), (6.3, 7.5), (8.3, 9.0), (9.2, 12.0))
    first, second = chunks(speech, CANVAS, max_s=10.0)
    assert first.end <= second.start
    assert samples(7.5) < first.end < samples(8.3)  # not the longer one at 2.0, nor the later one at 9.0


def test_an_early_pause_is_better_than_none() -> None:
    first, second = chunks(spoken((0.0, 1.0), (1.4, 10.4)), CANVAS, max_s=10.0)
    assert first.end <= samples(1.2) <= second.start


def test_unbroken_speech_is_cut_at_its_quietest() -> None:
    pcm = CANVAS[: samples(15)].copy()
    pcm[samples(7.0) : samples(7.05)] //= 100
    first, second = chunks([Speech(0, len(pcm))], pcm, max_s=10.0)
    assert first == Chunk(0, second.start)
    assert second.end == len(pcm)
    assert samples(7.0) <= first.end < samples(7.05)


@settings(deadline=None)
@given(st.integers(0, 50_000), st.integers(1, 50_000))
def test_the_quietest_place_lies_inside(low: int, length: int) -> None:
    at = quietest(CANVAS, low, low + length)
    assert low <= at <= low + length


def test_the_quietest_place_is_quiet() -> None:
    pcm = CANVAS[:SAMPLE_RATE].copy()
    pcm[5_000:5_900] = 0
    assert 5_000 <= quietest(pcm, 0, SAMPLE_RATE) < 5_900


def test_duration() -> None:
    assert duration_s(Chunk(8_000, 24_000)) == pytest.approx(1.0)
