"""A session against a scripted engine that knows every word and is as vague about times and edges as a real one."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.audio.pcm import samples, seconds
from callreel.audio.vad import FRAME
from callreel.engines.base import Decoded
from callreel.live.session import BREAK_S, CutRule, LiveOptions, Session, Work
from callreel.text import DecodeStats, Segment, Word

JITTER_S = 0.1
OPTIONS = LiveOptions(language="en", max_window_s=10.0)


@dataclass
class Script:
    """Known words on a track. Decodes move each time by up to JITTER_S and drop or garble what an edge cuts."""

    words: list[Word]
    seed: int = 0
    language: str | None = "en"
    windows: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def spoken(cls, gaps_s: Sequence[float], *, at_s: float = 1.0, seed: int = 0) -> Script:
        """One word for each gap, which follows it; lengths 0.15 to 0.5 s, names that come again now and then."""
        rng = random.Random(seed)
        words = []
        for i, gap_s in enumerate(gaps_s):
            end_s = at_s + rng.uniform(0.15, 0.5)
            words.append(Word(f" w{i if rng.random() < 0.8 else rng.randrange(4)}", at_s, end_s))
            at_s = end_s + gap_s
        return cls(words, seed)

    @property
    def text(self) -> str:
        return " ".join(w.word.strip() for w in self.words)

    @property
    def end(self) -> int:
        return samples(self.words[-1].end + 1.0) // FRAME * FRAME

    def probabilities(self, start: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Of whole frames from `start` to `end`: one that a word touches is speech."""
        frames = np.zeros((end - start) // FRAME, np.float32)
        for word in self._near(seconds(start), seconds(end)):
            low, high = (samples(word.start) - start) // FRAME, -((start - samples(word.end)) // FRAME)
            frames[max(0, low) : max(0, high)] = 0.9
        return frames

    def decode(self, work: Work) -> Decoded:
        self.windows.append((work.start, work.end))
        assert len(work.window.pcm) == work.end - work.start
        start_s, end_s = seconds(work.start), seconds(work.end)
        words = list(self._heard(start_s, end_s))
        return Decoded(tuple(words), self.language, 0.9, DecodeStats(tokens=len(words)))

    def _near(self, start_s: float, end_s: float) -> list[Word]:
        low = bisect_left(self.words, start_s, key=lambda w: w.end)
        return self.words[low : bisect_right(self.words, end_s, lo=low, key=lambda w: w.start)]

    def _heard(self, start_s: float, end_s: float) -> Iterator[Word]:
        rng = random.Random(f"{self.seed} {start_s} {end_s}")
        at = 0.0
        for word in self._near(start_s, end_s):
            if word.end <= start_s or word.start >= end_s:
                continue
            torn = word.start < start_s - 0.02 or word.end > end_s + 0.02
            if torn and rng.random() < 0.5:
                continue
            low = max(at, min(end_s, word.start + rng.uniform(-JITTER_S, JITTER_S)) - start_s)
            at = max(low, min(end_s, word.end + rng.uniform(-JITTER_S, JITTER_S)) - start_s)
            yield Word(f"{word.word}?" if not torn else f" torn{rng.randrange(9)}", round(low, 3), round(at, 3))


@dataclass
class Player:
    """Feeds a script to a session and decodes what it wants, `lag` feeds late."""

    session: Session
    script: Script
    at: int = 0
    lag: int = 0
    segments: list[Segment] = field(default_factory=list)
    kept: int = 0  # the most bytes of audio that the session held
    behind_s: float = 0.0  # the longest that a word waited for being committed
    _out: tuple[Work, int] | None = None

    def feed(self, n_samples: int) -> None:
        start, self.at = self.at, self.at + n_samples
        frames = self.script.probabilities(start // FRAME * FRAME, self.at // FRAME * FRAME)
        self.session.feed(np.zeros(n_samples, np.int16), frames)
        self.kept = max(self.kept, len(self.session._pcm))
        self.settle()

    def settle(self) -> None:
        """Decode what is wanted and due."""
        while True:
            if self._out is None:
                if self.session.wants() is None:
                    return
                self._out = self.session.take(), self.lag
            work, left = self._out
            if left > 0:
                self._out = work, left - 1
                return
            self._out = None
            known = len(work.utterance.agreement.committed)
            self.segments += self.session.decoded(work, self.script.decode(work))
            for word in work.utterance.agreement.committed[known:]:
                self.behind_s = max(self.behind_s, seconds(self.at - word.end))

    def play(self, until: int, chunk: int = 4096) -> Player:
        while self.at < until:
            self.feed(min(chunk, until - self.at))
        return self

    def finish(self) -> Player:
        self.session.flush()
        while not self.session.idle:
            self.settle()
        return self

    @property
    def completed(self) -> list[Segment]:
        return [s for s in self.segments if s.completed]

    @property
    def words(self) -> list[Word]:
        return [word for s in self.completed for word in s.words]

    @property
    def text(self) -> str:
        return " ".join(w.word.strip().rstrip("?") for w in self.words)


def player(script: Script, options: LiveOptions = OPTIONS, *, lag: int = 0, start: int = 0, at: int = 0) -> Player:
    return Player(Session(options, track="main", start=start, at=at), script, at=at, lag=lag)


def assert_sound(segments: Sequence[Segment]) -> None:
    """What every listener relies on."""
    seq, until = 0, 0.0
    for before, segment in zip([None, *segments], segments, strict=False):
        assert segment.words and segment.seq == seq
        assert segment.revision > (before.revision if before else 0)
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
        assert all(a.end <= b.start for a, b in pairwise(segment.words))
        if segment.completed:
            assert segment.start >= until
            seq, until = seq + 1, segment.end


def paused(n: int, seed: int) -> Script:
    """Phrases: most gaps are none, some are short, some end an utterance."""
    rng = random.Random(seed)
    return Script.spoken([rng.choice([0.0, 0.0, 0.0, 0.15, 0.3, 0.7, 2.5]) for _ in range(n)], seed=seed)


def unbroken(n: int, seed: int) -> Script:
    return Script.spoken([0.0] * n, seed=seed)


@pytest.mark.parametrize("make", [paused, unbroken])
@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("cut", CutRule)
def test_no_word_is_lost_or_doubled(cut: CutRule, lag: int, make: Callable[[int, int], Script]) -> None:
    for seed in range(4):
        script = make(100, seed)
        p = player(script, replace(OPTIONS, cut=cut), lag=lag).play(script.end).finish()
        assert p.text == script.text
        assert_sound(p.segments)
        assert all(0 < end - start <= samples(10.0) for start, end in script.windows)


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.05, 0.15, 0.3, 0.5, 1.0, 3.0]), min_size=1, max_size=30),
    st.lists(st.integers(1, 20_000), min_size=1, max_size=20),
    st.integers(0, 3),
    st.sampled_from([0.5, 1.0, 2.0]),
)
@settings(max_examples=60, deadline=None)
def test_any_feeds_give_the_words_that_were_said(gaps_s: list[float], feeds: list[int], lag: int, hop_s: float) -> None:
    script = Script.spoken(gaps_s)
    p = player(script, replace(OPTIONS, hop_s=hop_s), lag=lag)
    while p.at < script.end:
        for n_samples in feeds:
            p.feed(min(n_samples, script.end - p.at))
    p.finish()
    assert p.text == script.text
    assert_sound(p.segments)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_with_decodes_at_the_same_moments_the_splitting_of_the_feed_changes_nothing(feeds: list[int]) -> None:
    script = paused(20, seed=5)
    whole = player(script).play(script.end, 4096).finish()
    split = player(script)
    while split.at < script.end:
        left = min(4096, script.end - split.at)
        while left:
            n_samples = min(left, feeds[left % len(feeds)])
            start, split.at, left = split.at, split.at + n_samples, left - n_samples
            frames = script.probabilities(start // FRAME * FRAME, split.at // FRAME * FRAME)
            split.session.feed(np.zeros(n_samples, np.int16), frames)
        split.settle()
    assert split.finish().segments == whole.segments


def test_committed_words_stay_in_all_later_partials() -> None:
    script = paused(60, seed=2)
    p = player(script).play(script.end).finish()
    shown: dict[int, Segment] = {}
    for segment in p.segments:
        if segment.completed:
            assert segment.seq not in shown
            shown[segment.seq] = segment
    assert [s.seq for s in p.completed] == list(range(len(p.completed)))
    assert all(s.words for s in p.segments)


def test_partials_come_each_hop_and_only_while_someone_speaks() -> None:
    script = unbroken(20, seed=1)
    p = player(script, replace(OPTIONS, hop_s=1.0)).play(script.end, FRAME).finish()
    ends_s = [seconds(end) for _, end in script.windows]
    assert ends_s[0] == pytest.approx(script.words[0].start - 0.2 + 1.0, abs=0.1)
    assert all(0.9 <= after - before <= 1.1 for before, after in pairwise(ends_s[:-1]))
    assert ends_s[-1] <= script.words[-1].end + 0.3
    assert p.session.wants() is None


def test_nothing_is_said_on_silence_and_little_is_kept() -> None:
    session = Session(OPTIONS, track="main")
    minute = np.zeros(samples(60.0) // FRAME * FRAME, np.int16)
    for _ in range(60):
        session.feed(minute, np.full(len(minute) // FRAME, 0.1, np.float32))
        assert session.wants() is None and session.idle
        assert len(session._pcm) <= 2 * samples(BREAK_S)
    session.flush()
    assert session.idle
    assert session.received == 60 * len(minute)


@pytest.mark.parametrize("cut", CutRule)
def test_silence_behind_speech_is_forgotten(cut: CutRule) -> None:
    script = paused(10, seed=0)
    p = player(script, replace(OPTIONS, cut=cut)).play(script.end)
    for _ in range(100):
        p.session.feed(np.zeros(100 * FRAME, np.int16), np.zeros(100, np.float32))
        p.settle()
    assert len(p.session._pcm) <= 2 * samples(BREAK_S)
    assert p.text == script.text


def test_an_hour_of_speech_without_a_pause_grows_neither_memory_nor_delay() -> None:
    script = unbroken(60, seed=0)
    length_s = script.words[-1].end - 1.0
    script.words = [w.shifted(i * length_s) for i in range(int(3600 / length_s)) for w in script.words]
    p = player(script, replace(OPTIONS, hop_s=2.0)).play(script.end, 16 * FRAME).finish()
    assert p.text == script.text
    assert p.kept <= 2 * samples(OPTIONS.max_window_s + BREAK_S)
    assert p.behind_s <= 6.0
    assert max(s.end - s.start for s in p.completed) <= OPTIONS.max_segment_s + 6.0


def test_an_engine_that_never_agrees_with_itself_does_not_hold_up_the_stream() -> None:
    """Every window says other words: nothing is ever agreed on, yet windows move on and stay short."""
    script = unbroken(200, seed=3)

    @dataclass
    class Fickle(Script):
        def decode(self, work: Work) -> Decoded:
            result = super().decode(work)
            words = tuple(replace(w, word=f" {len(self.windows)}-{i}") for i, w in enumerate(result.words))
            return replace(result, words=words)

    fickle = Fickle(script.words)
    p = player(fickle).play(script.end).finish()
    assert all(end - start <= samples(10.0) for start, end in fickle.windows)
    assert p.kept <= 2 * samples(OPTIONS.max_window_s + BREAK_S)
    assert p.behind_s <= 1.5 * OPTIONS.max_window_s
    assert len(p.words) == pytest.approx(len(script.words), rel=0.1)
    assert_sound(p.segments)


def test_a_backlog_is_decoded_window_by_window_and_not_passed_over() -> None:
    """An hour's log after a crash, or an engine that was away: more speech than a window holds."""
    script = unbroken(150, seed=4)
    session = Session(OPTIONS, track="main")
    p = Player(session, script)
    session.feed(np.zeros(script.end, np.int16), script.probabilities(0, script.end))
    assert session.wants() is True
    assert p.finish().text == script.text
    assert all(end - start <= samples(10.0) for start, end in script.windows)
    assert_sound(p.segments)


@pytest.mark.parametrize("make", [paused, unbroken])
@pytest.mark.parametrize("seed", range(20))
def test_a_stream_that_is_taken_up_again_says_each_word_once(seed: int, make: Callable[[int, int], Script]) -> None:
    script = make(60, seed)
    crash = script.end * (3 + seed % 10) // 16 // FRAME * FRAME
    first = player(script).play(crash)
    stored = first.completed
    done = samples(stored[-1].end) if stored else 0
    at = max(0, done - samples(5.0))
    before = stored[-1].words if stored else ()
    session = Session(OPTIONS, track="main", epoch=2, seq=len(stored), start=done, at=at, before=before)
    second = Player(session, replace(script, seed=99))
    second.at = at
    frames = script.probabilities(at, at + (script.end - at) // FRAME * FRAME)
    session.feed(np.zeros(script.end - at, np.int16), frames)
    second.finish()
    assert " ".join([first_text(stored), second.text]).strip() == script.text
    assert second.completed[0].seq == len(stored)
    assert second.completed[0].start >= (stored[-1].end if stored else 0.0)
    assert {s.epoch for s in second.completed} == {2}


def first_text(segments: Sequence[Segment]) -> str:
    return " ".join(w.word.strip().rstrip("?") for s in segments for w in s.words)


def test_flushing_twice_is_flushing_once() -> None:
    script = unbroken(5, seed=0)
    p = player(script).play(script.end - samples(0.8) // FRAME * FRAME)
    p.session.flush()
    p.session.flush()
    p.finish()
    assert len(p.completed) == 1
    assert p.text == script.text


def test_speech_goes_on_after_a_stall() -> None:
    """The flush between two words costs none of them, wherever the decode puts them."""
    for seed in range(10):
        script = unbroken(40, seed)
        p = player(script).play(samples(script.words[19].end) // FRAME * FRAME)
        p.session.flush()
        p.play(script.end).finish()
        got, said = p.text.split(), script.text.split()
        assert abs(len(got) - len(said)) <= 1  # the flush itself tears the word at the seam
        assert got[:18] == said[:18] and got[-18:] == said[-18:]
        assert_sound(p.segments)


def test_a_stall_that_ends_with_silence_says_nothing_again() -> None:
    script = paused(30, seed=6)
    p = player(script)
    while p.at < script.end:
        p.feed(FRAME)
        if p.at % (50 * FRAME) == 0 and script.probabilities(p.at - 10 * FRAME, p.at).max() < 0.5:
            p.session.flush()
    assert p.finish().text == script.text


def test_a_final_decode_that_is_given_up_leaves_what_was_guessed() -> None:
    script = unbroken(6, seed=0)
    p = player(script, replace(OPTIONS, hop_s=0.5)).play(samples(script.words[-1].end + 0.2) // FRAME * FRAME)
    p.session.flush()
    work = p.session.take()
    assert work.final
    segments = p.session.decoded(work, None)
    assert p.session.idle
    assert [s.completed for s in segments] == [True]
    text = first_text(segments)
    assert text and script.text.startswith(text)


def test_a_partial_that_is_given_up_waits_for_the_next_hop() -> None:
    script = unbroken(12, seed=0)
    p = player(script, replace(OPTIONS, hop_s=1.0))
    while p.session.wants() is None:
        p.session.feed(np.zeros(FRAME, np.int16), script.probabilities(p.at, p.at + FRAME))
        p.at += FRAME
    assert p.session.wants() is False
    assert p.session.decoded(p.session.take(), None) == []
    assert p.session.wants() is None
    assert p.play(script.end).finish().text == script.text


def test_an_engine_that_fails_for_long_does_not_make_the_session_grow() -> None:
    script = unbroken(300, seed=0)
    p = player(script)
    while p.at < script.end:
        p.session.feed(np.zeros(FRAME, np.int16), script.probabilities(p.at, p.at + FRAME))
        p.at += FRAME
        if p.session.wants() is not None:
            assert p.session.decoded(p.session.take(), None) == []
        assert len(p.session._pcm) <= 2 * samples(OPTIONS.max_window_s + BREAK_S)


def test_one_decode_is_out_at_a_time() -> None:
    script = unbroken(12, seed=0)
    session = Session(replace(OPTIONS, hop_s=1.0), track="main")
    session.feed(np.zeros(script.end, np.int16), script.probabilities(0, script.end))
    work = session.take()
    assert session.wants() is None and not session.idle
    session.decoded(work, script.decode(work))
    assert session.idle


def test_the_language_is_settled_by_what_is_heard_and_then_asked_for() -> None:
    script = paused(12, seed=1)
    script.language = "sw"
    p = player(script, replace(OPTIONS, language=None))
    assert p.session.decode_options().language is None
    p.play(script.end).finish()
    assert p.session.language == "sw"
    assert p.session.language_probability == 1.0
    assert p.session.decode_options().language == "sw"


def test_what_the_stream_asked_for_reaches_the_engine() -> None:
    options = replace(OPTIONS, language="en", task="translate", prompt="Names: Grace", hotwords="Callreel")
    session = Session(options, track="main")
    session.feed(np.zeros(100 * FRAME, np.int16), np.ones(100, np.float32))
    assert session.window_s() == pytest.approx(seconds(100 * FRAME), abs=0.3)
    work = session.take()
    assert (work.options.language, work.options.task, work.options.hotwords) == ("en", "translate", "Callreel")
    assert work.window.prompt == "Names: Grace"


def test_text_that_the_engine_made_up_is_not_taken() -> None:
    session = Session(OPTIONS, track="main")
    session.feed(np.zeros(60 * FRAME, np.int16), np.ones(60, np.float32))
    session.flush()
    stats = DecodeStats(tokens=3, avg_logprob=-1.5, no_speech_prob=0.9)
    assert session.decoded(session.take(), Decoded((Word(" eight", 0.1, 0.5),), "en", 0.9, stats)) == []
    assert session.idle
