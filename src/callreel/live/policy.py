"""Which words are certain, and where the next window starts.

The words: local agreement between successive decodes (Machacek et al. 2023, LocalAgreement-2).

A word is committed when two decodes in a row say it at the same place in the order, or when a final decode says it.
A committed word never changes. Times are samples on the track's clock, so that nothing drifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from callreel.audio.pcm import samples, seconds
from callreel.text import Word, normalized_words

LEAD_S = 0.3  # in the middle of speech a window starts at least so long before the new words
VAGUE_S = 0.1  # a time that is off by this much says nothing
EDGE_S = 0.5  # words that end this near to a window's edge may be cut off by it: they must wait
TAIL_S = 2.0  # how much of what is committed is looked for in the next decode

# What a joint costs, in words. Engines place a word within 0.15 s or so, a short word lasts 0.15 s, and "five five"
# are 0.4 s apart: a third of a second of misfit is as bad as a word too few.
MISFIT_A_SECOND = 3.0
OTHER_WORD = 0.8  # the same place, another spelling
LEFT_OUT = 0.7  # a new word is taken for one already committed, though none is like it


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
    """The words of one utterance: committed ones, and the newest guess at what follows them.

    No word before sample `committed_until` is taken; `before` are the words committed ahead of this utterance, so
    that a window which reaches back over them says none twice.
    """

    def __init__(self, committed_until: int, before: Sequence[Spoken] = ()) -> None:
        self.committed: list[Spoken] = []
        self.guess: list[Spoken] = []
        self.committed_until = committed_until  # sample; only ever rises
        self._before = list(before)

    def follow(self, before: Sequence[Spoken], until: int) -> None:
        """Stand behind what was committed meanwhile; only while nothing is committed here."""
        self._before = list(before)
        self.committed_until = max(self.committed_until, until)

    def tail(self) -> list[Spoken]:
        """The last words committed, here or before, up to TAIL_S back from `committed_until`."""
        low = self.committed_until - samples(TAIL_S)
        return [word for word in [*self._before, *self.committed[-24:]] if word.end > low]

    def lead(self) -> int:
        """Where a window starts in the middle of speech: ahead of a committed word, which joins it to the others."""
        starts = [word.start for word in self.tail()]
        if not starts:
            return self.committed_until
        latest = self.committed_until - samples(LEAD_S)
        return max((start for start in starts if start <= latest), default=starts[0]) - samples(VAGUE_S)

    def heard(self, words: Sequence[Spoken], window_start: int, window_end: int) -> list[Spoken]:
        """Take a partial decode; returns what it commits: the beginning it shares with the guess before it."""
        fresh = self._after_committed(words, window_start)
        edge = window_end - samples(EDGE_S)
        agreed = 0
        for old, new in zip(self.guess, fresh, strict=False):
            if old.key != new.key or new.end > edge:
                break
            agreed += 1
        committed = self._commit(fresh[:agreed])
        self.guess = _behind(fresh[agreed:], self.committed_until)
        return committed

    def heard_last(self, words: Sequence[Spoken], window_start: int) -> list[Spoken]:
        """Take the final decode: what it says after the committed words is committed as it is."""
        fresh = self._after_committed(words, window_start)
        self.guess = []
        return self._commit(fresh)

    def force(self, until: int) -> list[Spoken]:
        """Commit the guess up to `until` without agreement: no decode will come that could confirm it."""
        sure = [word for word in self.guess if word.middle < until]
        self.guess = self.guess[len(sure) :]
        return self._commit(sure)

    def skip(self, until: int) -> None:
        """Nothing more is expected before `until`."""
        self.committed_until = max(self.committed_until, until)

    def _after_committed(self, words: Sequence[Spoken], window_start: int) -> list[Spoken]:
        return list(words[joint(self.tail(), words, self.committed_until, window_start) :])

    def _commit(self, words: Sequence[Spoken]) -> list[Spoken]:
        done = _behind(words, self.committed_until)
        self.committed.extend(done)
        self.committed_until = max([self.committed_until, *(word.end for word in done[-1:])])
        return done


def _behind(words: Sequence[Spoken], until: int) -> list[Spoken]:
    """The words with times that neither reach before `until` nor overlap."""
    moved = []
    for word in words:
        start = max(word.start, until)
        until = max(word.end, start)
        moved.append(Spoken(word.word, start, until, word.probability))
    return moved


def joint(tail: Sequence[Spoken], words: Sequence[Spoken], until: int, window_start: int) -> int:
    """How many of `words`, heard from `window_start` on, say what the committed `tail`, which ends at `until`, says.

    The cheapest alignment by text and time decides: two decodes differ in a word's time by more than a short word
    lasts, so its middle alone would now and then lose a word or say it twice. Without a tail the middle decides.
    """
    first = next((i for i, word in enumerate(words) if word.end > until - samples(TAIL_S)), len(words))
    heard = [word for word in tail if word.end > window_start]
    if not heard:
        return next((i for i in range(first, len(words)) if words[i].middle >= until), len(words))
    near = words[first:]

    # row[j]: the cost of taking near[:j] for the tail so far; said[j]: whether it ends with the tail's last word.
    row, said = [0.0], [False]
    for new in near:
        row.append(row[-1] + _left_out(new, until))
        said.append(False)
    for old in heard:
        unheard = min(1.0, (old.end - window_start) / max(1, old.end - old.start))
        below, said = row, [False]
        row = [below[0] + unheard]
        for j, new in enumerate(near):
            same = old.key == new.key
            misfit = MISFIT_A_SECOND * max(0.0, seconds(abs(old.middle - new.middle)) - VAGUE_S)
            taken = below[j] + misfit + (0.0 if same else OTHER_WORD)
            other = min(below[j + 1] + unheard, row[j] + _left_out(new, until))
            row.append(min(taken, other))
            said.append(same and taken <= other)
    # What follows the tail's last word is new, whatever its time; else a word long before `until` hardly is.
    early = 0.0
    totals = [0.0] * len(row)
    for j in range(len(near), -1, -1):
        if j < len(near):
            early += MISFIT_A_SECOND * max(0.0, seconds(until - near[j].middle))
        totals[j] = row[j] + (0.0 if said[j] else early)
    return first + min(range(len(totals)), key=lambda j: (totals[j], j))


def _left_out(new: Spoken, until: int) -> float:
    return max(0.0, LEFT_OUT + MISFIT_A_SECOND * seconds(new.middle - until))


class CutRule(Enum):
    """Where the next window starts once words are committed."""

    WORD = "word"  # a word before the end of what is committed
    PAUSE = "pause"  # at the last pause up to `look_back_s` before that end; like WORD where there is none


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What a stream may choose, and the policy's settings. `docs/why.md` says how the defaults were found."""

    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    hotwords: str = ""
    endpoint_silence_s: float = 0.35
    hop_s: float = 0.5
    cut: CutRule = CutRule.PAUSE
    look_back_s: float = 5.0
    max_window_s: float = 30.0
    max_segment_s: float = 8.0  # committed words are completed as a segment by then, pause or not


@dataclass(slots=True)
class Utterance:
    """Speech between two endpoints. `end` is None while it goes on."""

    start: int
    agreement: Agreement
    heard_until: int  # end of the newest window that was decoded
    end: int | None = None
    torn: bool = False  # goes on with speech that a flush cut in two
    completed_words: int = 0  # of agreement.committed, how many already stand in a completed segment


def window_start(u: Utterance, pauses: Sequence[int], o: LiveOptions) -> int:
    """Where the window of `u` starts, so that little is decoded again. `pauses`: where no word is cut."""
    agreement = u.agreement
    until = agreement.committed_until
    nearest = u.start
    if agreement.committed or u.torn:
        # never so far back that a full window would not move on
        low = until - samples(min(o.look_back_s, o.max_window_s / 4))
        near = [] if o.cut is CutRule.WORD else [pause for pause in pauses if low <= pause <= until]
        nearest = max(near[-1] if near else agreement.lead(), u.start - (samples(TAIL_S) if u.torn else 0))
    return nearest


def phrase(words: Sequence[Spoken]) -> int:
    """How many of the words make a segment: up to the longest gap in the second half."""
    gaps = [after.start - word.end for word, after in pairwise(words)] + [0]
    return 1 + max(range(len(words) // 2, len(words)), key=lambda i: (gaps[i], i))
