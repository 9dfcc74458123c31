"""A session against a scripted engine that knows every word and is as vague about times and edges as a real one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

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
OPTIONS = LiveOptions(language="en", min_window_s=5.0, max_window_s=10.0)


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
        for word in self.words:
            low, high = (samples(word.start) - start) // FRAME, -((start - samples(word.end)) // FRAME)
            frames[max(0, low) : max(0, high)] = 0.9
        return frames

    def decode(self, work: Work) -> Decoded:
        self.windows.append((work.start, work.end))
        assert len(work.window.pcm) == work.end - work.start
        start_s, end_s = seconds(work.start), seconds(work.end)
        words = list(self._heard(start_s, end_s))
        return Decoded(tuple(words), self.language, 0.9, DecodeStats(tokens=len(words)))

    def _heard(self, start_s: float, end_s: float) -> Iterator[Word]:
        rng = random.Random(f"{self.seed} {start_s} {end_s}")
        at = 0.0
        for word in self.words:
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
        assert all(a.end <= b.start for a, b in zip(segment.words, segment.words[1:], strict=False))
        if segment.completed:
            assert segment.start >= until
            seq, until = seq + 1, segment.end


def paused(n: int, seed: int) -> Script:
    """Phrases: most gaps are none, some are short, some end an utterance."""
    rng = random.Random(seed)
    return Script.spoken([rng.choice([0.0, 0.0, 0.0, 0.15, 0.3, 0.7, 2.5]) for _ in range(n)], seed=seed)


def unbroken(n: int, seed: int) -> Script:
    return Script.spoken([0.0] * n, seed=seed)


@pytest.mark.parametrize("cut", CutRule)
@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("make", [paused, unbroken])
def test_no_word_is_lost_or_doubled(make, cut: CutRule, lag: int) -> None:  # type: ignore[no-untyped-def]
    errors = 0
    for seed in range(6):
        script = make(120, seed)
        p = player(script, replace(OPTIONS, cut=cut), lag=lag).play(script.end).finish()
        errors += p.text != script.text
        if p.text != script.text: print(seed, [(a,b) for a,b in zip(p.text.split(), script.text.split()) if a!=b][:3], len(p.text.split()))
        assert_sound(p.segments)
        assert all(end - start <= samples(10.0) for start, end in script.windows)
    assert errors == 0
