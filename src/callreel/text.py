"""Words and segments: what speech becomes, whoever wrote it down and wherever it is kept."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; `start` and `end` are seconds on the clock of whoever holds it (window, track or call)."""

    word: str
    start: float
    end: float
    probability: float = 1.0

    def shifted(self, offset_s: float) -> Word:
        return Word(self.word, round(self.start + offset_s, 3), round(self.end + offset_s, 3), self.probability)


@dataclass(frozen=True, slots=True)
class DecodeStats:
    """How sure the engine was of a decode; None where the engine cannot say.

    `avg_logprob` is the mean natural log probability of the tokens (<= 0), `no_speech_prob` lies in 0..1,
    `compression_ratio` is text bytes over their zlib size (loops of repeats score above about 2.4).
    """

    tokens: int = 0
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a transcript on one track; times are seconds from the start of the call.

    (transcript, track, seq) is its key. Of two rows with one key the higher (epoch, revision) wins: epoch is the
    stream's lease number, so an instance that lost its stream cannot overwrite what its successor wrote. `edited`: a
    person changed its text or speaker, and these, with the words, are theirs.
    """

    track: str
    seq: int
    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    speaker: str | None = None
    language: str | None = None
    completed: bool = True
    epoch: int = 1
    revision: int = 1
    decode: DecodeStats = field(default_factory=DecodeStats)
    edited: bool = False


def join_words(words: Iterable[Word]) -> str:
    """The text of `words`. A word carries its own leading space where its language writes one."""
    return "".join(w.word for w in words).strip()


def normalized_words(text: str) -> list[str]:
    """Words as WER compares them: case folded, punctuation gone, apostrophes inside words kept."""
    kept = "".join(
        c if c.isalnum() or c in "'’" or unicodedata.category(c).startswith("M") else " " for c in text.casefold()
    )
    return [w for w in (raw.strip("'’") for raw in kept.replace("’", "'").split()) if w]


def text_of(segments: Sequence[Segment]) -> str:
    """All text of a transcript in one line, in order of time."""
    return " ".join(s.text for s in sorted(segments, key=lambda s: (s.start, s.track, s.seq)) if s.text)
