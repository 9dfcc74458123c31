"""Which words are certain: local agreement between successive decodes (Machacek et al. 2023, LocalAgreement-2).

A word is committed when two decodes in a row say it at the same place in the order, or when a final decode says it.
A committed word never changes. Times are samples on the track's clock, so that nothing drifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from callreel.audio.pcm import samples, seconds
from callreel.text import Word, normalized_words

EDGE_S = 0.5  # words that end this near to a window's edge may be cut off by it: they must wait
JOINT_S = 0.25  # how far the same word's times may differ between two decodes


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word at samples [start, end) of its track."""

    word: str
    start: int
    end: int
    probability: float = 1.0

    @property
    def key(self) -> str:
        """What agreement compares: without case and punctuation, which waver while the rest does not."""
        return " ".join(normalized_words(self.word)) or self.word.strip()

    @property
    def middle(self) -> int:
        return (self.start + self.end) // 2

    def as_word(self) -> Word:
        return Word(self.word, round(seconds(self.start), 3), round(seconds(self.end), 3), self.probability)


def placed(words: Sequence[Word], window_start: int) -> list[Spoken]:
    """An engine's words, whose times count from the window's start, on the track's clock."""
    return [
        Spoken(w.word, window_start + samples(w.start), window_start + samples(w.end), w.probability) for w in words
    ]


class Agreement:
    """The words of one utterance: committed ones, and the newest guess at what follows them."""

    def __init__(self, committed_until: int) -> None:
        self.committed: list[Spoken] = []
        self.guess: list[Spoken] = []
        self.committed_until = committed_until  # sample; only ever rises

    def heard(self, words: Sequence[Spoken], window_end: int) -> list[Spoken]:
        """Take a partial decode; returns what it commits: the beginning it shares with the guess before it."""
        fresh = self._after_committed(words)
        edge = window_end - samples(EDGE_S)
        agreed = 0
        for old, new in zip(self.guess, fresh, strict=False):
            if old.key != new.key or new.end > edge:
                break
            agreed += 1
        self.guess = fresh[agreed:]
        return self._commit(fresh[:agreed])

    def heard_last(self, words: Sequence[Spoken]) -> list[Spoken]:
        """Take the final decode: what it says after the committed words is committed as it is."""
        fresh = self._after_committed(words)
        self.guess = []
        return self._commit(fresh)

    def force(self, until: int) -> list[Spoken]:
        """Commit the guess up to `until` without agreement: the window is full and must move on."""
        sure = [word for word in self.guess if word.end <= until]
        self.guess = self.guess[len(sure) :]
        committed = self._commit(sure)
        self.committed_until = max(self.committed_until, until)
        return committed

    def _after_committed(self, words: Sequence[Spoken]) -> list[Spoken]:
        """Words whose middle lies after the committed ones; at the joint the same word is not said twice."""
        fresh = [word for word in words if word.middle >= self.committed_until]
        if fresh and self.committed:
            last = self.committed[-1]
            if fresh[0].key == last.key and abs(fresh[0].start - last.start) <= samples(JOINT_S):
                fresh = fresh[1:]
        return fresh

    def _commit(self, words: Sequence[Spoken]) -> list[Spoken]:
        done = []
        for word in words:
            start = max(word.start, self.committed_until)
            spoken = Spoken(word.word, start, max(word.end, start), word.probability)
            self.committed_until = spoken.end
            done.append(spoken)
        self.committed.extend(done)
        return done
