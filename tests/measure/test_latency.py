from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from callreel import metrics
from callreel.audio.pcm import samples, seconds
from callreel.errors import InvalidInput
from callreel.measure.event_loop import Quantile, lag_buckets, quantile
from callreel.measure.harness import CHUNK, Played
from callreel.measure.latency import (
    Latency,
    Script,
    Spoken,
    Utterance,
    final_latencies,
    scripts,
    seconds_of,
    word_latencies,
)
from callreel.measure.oracle import KnownAudio, known_recordings
from callreel.text import Word

FRAME_S = seconds(CHUNK)
BEGAN = 100.0
HELLO = Utterance(0.4, 1.0, "hello there", (Word("hello", 0.4, 0.7), Word("there", 0.7, 1.0)))
BYE = Utterance(2.0, 2.5, "bye", (Word("bye", 2.0, 2.5),))


def played(n_frames: int, *received: tuple[float, list[tuple[float, float, str, bool]]]) -> Played:
    """A stream in real time from BEGAN on; messages at (seconds after it, [(start, end, text, completed)])."""
    found = Played("uid", BEGAN, [BEGAN + FRAME_S * (i + 1) for i in range(n_frames)])
    for at, segments in received:
        found.received.append((BEGAN + at, {"segments": [message(*segment) for segment in segments]}))
    return found


def message(start: float, end: float, text: str, completed: bool) -> dict[str, Any]:
    return {"start": f"{start:.3f}", "end": f"{end:.3f}", "text": text, "completed": completed}


def test_from_the_frame_that_holds_the_end_to_the_final() -> None:
    # 1.0 s lies in the fourth frame, sent at 1.024 s; 2.5 s in the tenth, sent at 2.56 s.
    stream = played(
        12,
        (0.9, [(0.4, 0.7, "hello", False)]),
        (1.5, [(0.4, 1.0, "hello there", True)]),
        (3.0, [(0.4, 1.0, "hello there", True), (2.0, 2.5, "bye", True)]),
    )
    assert final_latencies(stream, [HELLO, BYE]) == pytest.approx([1.5 - 1.024, 3.0 - 2.56])


def test_the_last_sample_of_a_frame_is_in_that_frame() -> None:
    stream = played(4, (2.0, [(0.0, 2 * FRAME_S, "x", True)]))
    (latency,) = final_latencies(stream, [Utterance(0.0, 2 * FRAME_S, "x")])
    assert latency == pytest.approx(2.0 - 2 * FRAME_S)


def test_partials_and_other_utterances_are_no_finals() -> None:
    stream = played(
        12,
        (1.2, [(0.4, 1.0, "hello there", False)]),
        (1.3, [(0.0, 0.3, "noise", True)]),
        (2.9, [(2.0, 2.5, "bye", True)]),
    )
    assert final_latencies(stream, [HELLO, BYE]) == [None, pytest.approx(2.9 - 2.56)]


def test_the_segment_with_the_end_counts_not_the_one_before_it() -> None:
    stream = played(12, (1.2, [(0.4, 0.8, "hello", True)]), (1.6, [(0.8, 1.0, "there", True)]))
    assert final_latencies(stream, [HELLO]) == pytest.approx([1.6 - 1.024])


def test_an_end_that_is_placed_early_and_one_segment_over_two_utterances() -> None:
    stream = played(12, (3.0, [(0.4, 2.3, "hello there bye", True)]))
    assert final_latencies(stream, [HELLO, BYE]) == pytest.approx([3.0 - 1.024, 3.0 - 2.56])


def test_what_was_not_sent_is_not_lost() -> None:
    assert final_latencies(played(6), [HELLO, BYE]) == [None]
    assert word_latencies(played(3), HELLO.words) == [None]


def test_a_word_is_there_when_a_segment_reaches_over_its_middle() -> None:
    stream = played(12, (0.9, [(0.4, 0.65, "hello", False)]), (1.4, [(0.4, 1.0, "hello there", True)]))
    # ends at 0.7 s and 1.0 s: frames sent at 0.768 s and 1.024 s
    assert word_latencies(stream, [*HELLO.words, *BYE.words]) == [
        pytest.approx(0.9 - 0.768),
        pytest.approx(1.4 - 1.024),
        None,
    ]


def test_percentiles() -> None:
    latency = Latency.of([None, *(i / 100 for i in range(101)), None])
    assert latency == Latency(p50=0.5, p95=0.95, p99=0.99, max=1.0, number=101, lost=2)
    assert Latency.of([None]) == Latency(None, None, None, None, 0, 1)


@given(st.lists(st.none() | st.floats(0, 100), max_size=40))
def test_percentiles_are_in_order_and_nothing_is_uncounted(found: list[float | None]) -> None:
    latency = Latency.of(found)
    assert latency.number + latency.lost == len(found)
    if latency.number:
        percentiles = [latency.p50, latency.p95, latency.p99, latency.max]
        assert percentiles == sorted(p for p in percentiles if p is not None)


def test_streams_together() -> None:
    script = Script(np.zeros(3 * 16_000, np.int16), (HELLO, BYE))
    good = played(12, (1.5, [(0.4, 1.0, "hello there", True)]), (3.0, [(2.0, 2.5, "by", True)]))
    broken = played(5)
    broken.broke_off = True
    spoken = Spoken.of([good, broken], [script, script])
    facts = spoken.facts()
    assert facts["final_s"]["number"] == 2
    assert facts["final_s"]["lost"] == 1
    assert facts["wer"] == pytest.approx(4 / 6, abs=1e-4)
    assert facts["streams_broken_off"] == 1
    twice = Spoken.pooled([spoken, spoken])
    assert (twice.n_words, twice.errors, len(twice.finals)) == (12, 8, 6)
    assert Spoken.of([], []).facts()["wer"] == 0.0


def test_scripts_say_what_they_claim(audio: Path) -> None:
    known = KnownAudio(known_recordings(audio))
    parts = scripts(audio, 4, 25.0)
    assert len({part.text for part in parts}) == 4
    assert seconds_of(parts) <= 100.0
    for part in parts:
        assert len(part.pcm) <= samples(25.0)
        found, _ = known.find(part.pcm)
        assert "".join(word.word for word in found).split() == part.text.split()
        said = [word for utterance in part.utterances for word in utterance.words]
        for got, wanted in zip(found, said, strict=True):
            assert got.start == pytest.approx(wanted.start, abs=0.002)


def test_no_scripts(audio: Path) -> None:
    with pytest.raises(InvalidInput, match="'xx'"):
        scripts(audio, 1, 20.0, language="xx")
    with pytest.raises(InvalidInput, match="too short"):
        scripts(audio, 1, 2.0)


def test_quantiles_of_a_histogram() -> None:
    buckets = {0.01: 50.0, 0.02: 50.0, 0.05: 90.0, inf: 100.0}
    assert quantile(buckets, 0.25) == Quantile(0.005, 0.0, 0.01)
    assert quantile(buckets, 0.5) == Quantile(0.01, 0.0, 0.01)
    assert quantile(buckets, 0.7).value == pytest.approx(0.035)
    assert quantile(buckets, 0.7).low == 0.02
    assert quantile(buckets, 0.99) == Quantile(0.05, 0.05, inf)
    with pytest.raises(ValueError, match="without observations"):
        quantile({0.01: 0.0, inf: 0.0}, 0.5)


def test_the_lag_is_found_among_the_metrics() -> None:
    before = lag_buckets(generate_latest().decode())
    metrics.event_loop_lag.observe(0.0035)
    after = lag_buckets(generate_latest().decode())
    assert sorted(after) == [*metrics.LAG, inf]
    grown = {bound: after[bound] - before[bound] for bound in after}
    found = quantile(grown, 0.99)
    assert (found.low, found.high) == (0.003, 0.005)
    assert found.value == pytest.approx(0.00498)
