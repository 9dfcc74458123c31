from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.errors import Cancelled
from callreel.offline.checkpoint import Checkpoint, Past, Plan
from callreel.offline.chunk import Chunk
from callreel.offline.decoding import Decoding, batch_size, batches, items_of
from callreel.offline.options import TranscribeOptions
from callreel.text import DecodeStats
from tests.offline.engines import HashEngine

PCM = np.random.default_rng(0).integers(-9000, 9000, 2_000_000).astype(np.int16)


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def decoding(
    engine: HashEngine,
    pool: Executor,
    *,
    tracks: list[list[Chunk]],
    options: TranscribeOptions,
    past: Past | None = None,
    batch: int = 3,
    cancelled: Callable[[], bool] = lambda: False,
) -> Decoding:
    plan = Plan(tracks, batch, engine.capabilities.parallel)
    return Decoding(
        engine,
        options,
        items_of(tracks),
        [PCM for _ in tracks],
        plan=plan,
        past=past or Past(),
        checkpoint=Checkpoint(),
        pool=pool,
        cancelled=cancelled,
    )


def row(n: int, every_s: float = 3.0) -> list[Chunk]:
    """`n` windows of lengths that differ."""
    return [Chunk(round(16_000 * i * every_s), round(16_000 * (i * every_s + 1 + i * 7 % 5 / 4))) for i in range(n)]


def outcome(found: Decoding, language: str | None = "en") -> dict[int, Decoded]:
    return {i: decoded for part in found.decode(language) for i, decoded in part.items()}


@given(
    st.integers(0, 500),
    st.integers(1, 32),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 16),
)
def test_a_batch_size_keeps_its_bounds_and_all_cores_busy(
    n: int, batch: int, parallel: int, least: int, most: int
) -> None:
    can = Capabilities(batch=batch, parallel=parallel)
    size = batch_size(n, can, least=least, most=most)
    assert 1 <= size <= max(least, min(most, batch))
    if least == 1 and n >= parallel:
        n_batches = -(-n // size)
        assert n_batches >= min(parallel, n) or -(-n // (size - 1)) > parallel


@given(st.lists(st.floats(0.1, 30.0), max_size=80), st.integers(1, 8), st.integers(1, 4), st.data())
def test_batches_hold_each_window_once_and_not_far_from_home(
    durations: list[float], size: int, parallel: int, data: st.DataObject
) -> None:
    indices = [i for i in range(len(durations)) if data.draw(st.booleans())]
    formed = list(batches(indices, durations, size=size, parallel=parallel))
    assert sorted(i for batch in formed for i in batch) == indices
    assert all(1 <= len(batch) <= size for batch in formed)
    assert sum(len(batch) < size for batch in formed) <= 1
    reach = size * parallel * 4
    for at, batch in enumerate(formed):
        assert all(abs(indices.index(i) - at * size) < reach for i in batch)
        assert all(durations[batch[0]] >= durations[i] for i in batch)


@pytest.mark.parametrize("parallel", [2, 3])
def test_threads_decide_nothing(parallel: int, pool: Executor) -> None:
    options = TranscribeOptions()
    outcomes = []
    for _ in range(4):
        engine = HashEngine(parallel=parallel)
        outcomes.append(outcome(decoding(engine, pool, tracks=[row(20), row(9, 5.0)], options=options)))
        assert engine.most_at_once <= parallel
    assert len(outcomes[0]) == 29
    assert all(found == outcomes[0] for found in outcomes)


def test_an_engine_of_one_call_gets_one(pool: Executor) -> None:
    engine = HashEngine(parallel=1)
    outcome(decoding(engine, pool, tracks=[row(20)], options=TranscribeOptions()))
    assert engine.most_at_once == 1
    assert max(len(prompts) for prompts, _ in engine.asked) == 3


@pytest.mark.parametrize("profile", ["fast", "balanced", "accurate"])
@given(data=st.data())
def test_what_was_done_before_is_not_done_again_and_changes_nothing(
    profile: str, pool: Executor, data: st.DataObject
) -> None:
    options, tracks = TranscribeOptions(profile=profile), [row(11), row(5, 6.0)]
    whole = decoding(HashEngine(parallel=2), pool, tracks=tracks, options=options)
    language = whole.language()
    batches_done = [dict(part) for part in whole.decode(language)][1:]
    probed = whole._past.probed
    n = data.draw(st.integers(0, len(batches_done)))
    if profile == "accurate":  # one after another: what is done is a beginning
        past = {i: decoded for part in batches_done[:n] for i, decoded in part.items()}
    else:
        chosen = data.draw(st.permutations(batches_done))[:n]
        past = {i: decoded for part in chosen for i, decoded in part.items()}
    engine = HashEngine(parallel=2)
    again = decoding(engine, pool, tracks=tracks, options=options, past=Past(None, dict(probed), dict(past)))
    assert again.language() == language
    expected = {i: decoded for part in batches_done for i, decoded in part.items()}
    if profile != "accurate":
        expected |= {i: decoded for i, decoded in probed.items() if decoded.language == language}
    assert outcome(again, language) == expected
    assert sum(len(prompts) for prompts, _ in engine.asked) <= 16 - len(past)


def test_windows_get_the_users_prompt_and_words(pool: Executor) -> None:
    engine = HashEngine()
    options = TranscribeOptions(prompt="Acme, Kisumu", hotwords="Callreel", task="translate", word_times=False)
    outcome(decoding(engine, pool, tracks=[row(4)], options=options))
    assert {prompt for prompts, _ in engine.asked for prompt in prompts} == {"Acme, Kisumu"}
    asked = {(o.hotwords, o.task, o.word_times, o.beam_size) for _, o in engine.asked}
    assert asked == {("Callreel", "translate", False, 5)}


def test_accurate_hears_each_window_with_the_text_before_it(pool: Executor) -> None:
    engine = HashEngine(parallel=2)
    options = TranscribeOptions(profile="accurate", prompt="Acme")
    found = outcome(decoding(engine, pool, tracks=[row(12), row(2, 4.0)], options=options))
    items = items_of([row(12), row(2, 4.0)])
    said = {i: "".join(w.word for w in decoded.words).strip() for i, decoded in found.items()}
    first = [i for i, item in enumerate(items) if item.track == 0]
    prompts = [prompt for (prompt,), _ in engine.asked]
    assert prompts.count("Acme") == 2  # at the start of each track
    assert f"Acme {said[first[0]]}" in prompts
    assert f"Acme {said[first[0]]} {said[first[1]]}" in prompts
    assert max(map(len, prompts)) <= 700
    assert any(prompt.endswith(said[first[-2]]) for prompt in prompts)


def test_what_is_doubtful_or_hot_is_no_context(pool: Executor) -> None:
    def stats(window: Window, options: DecodeOptions) -> DecodeStats:
        sure = options.temperature >= 0.6 or len(window.pcm) != len_of_second
        return DecodeStats(avg_logprob=-0.1 if sure else -2.0, temperature=options.temperature)

    pieces = row(4)
    len_of_second = pieces[1].end - pieces[1].start
    engine = HashEngine(stats=stats)
    found = outcome(decoding(engine, pool, tracks=[pieces], options=TranscribeOptions(profile="accurate")))
    assert found[1].stats.temperature == 0.6
    prompts = [prompt for (prompt,), _ in engine.asked]
    assert [bool(prompt) for prompt in prompts] == [False, True, True, True, True, False, True]
    assert found[1].words[0].word not in prompts[-1]


def test_the_language_is_asked_of_several_places_and_of_the_candidates(pool: Executor) -> None:
    engine = HashEngine(parallel=2)
    heard = decoding(engine, pool, tracks=[row(30)], options=TranscribeOptions(languages=("en", "sw")))
    assert heard.language() in ("en", "sw")
    assert sum(len(prompts) for prompts, _ in engine.asked) == 3
    assert {o.languages for _, o in engine.asked} == {("en", "sw")}
    probed = sorted(heard._past.probed)
    assert probed[0] < 10 <= probed[1] < 20 <= probed[2]

    def answers(options: TranscribeOptions, languages: tuple[str, ...] = ("en", "sw")) -> tuple[str | None, int]:
        engine = HashEngine(languages=languages)
        found = decoding(engine, pool, tracks=[row(30)], options=options).language()
        return found, len(engine.asked)

    assert answers(TranscribeOptions(language="sw")) == ("sw", 0)
    assert answers(TranscribeOptions(languages=("sw",))) == ("sw", 0)
    assert answers(TranscribeOptions(), ("en",)) == ("en", 0)  # it has no other
    assert answers(TranscribeOptions(languages=("de", "fr")))[0] == "de"  # an engine that asks nobody


def test_a_cancel_is_heard_between_batches(pool: Executor) -> None:
    engine = HashEngine()
    found = decoding(
        engine, pool, tracks=[row(30)], options=TranscribeOptions(), cancelled=lambda: len(engine.asked) >= 2
    )
    with pytest.raises(Cancelled):
        outcome(found)
    assert len(engine.asked) == 2


def test_an_error_of_the_engine_comes_through(pool: Executor) -> None:
    def stats(window: Window, options: DecodeOptions) -> DecodeStats:
        raise RuntimeError("out of ink")

    with pytest.raises(RuntimeError, match="ink"):
        outcome(decoding(HashEngine(stats=stats), pool, tracks=[row(3)], options=TranscribeOptions()))


def test_items_are_in_order_of_time() -> None:
    items = items_of([row(3), row(3, 2.0)])
    assert [item.chunk.start for item in items] == sorted(item.chunk.start for item in items)
    assert [item.track for item in items][:2] == [0, 1]
    assert replace(items[0], track=1).duration_s == items[0].duration_s
