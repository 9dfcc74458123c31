"""Word error rate, and where the errors are: words lost, words wrong, words too many, words said twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from callreel.text import normalized_words

MAX_RUN = 128  # words; a longer run said twice counts as inserted only (30 s of speech have fewer)


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a hypothesis differs from its reference, in words, by a shortest edit from the one to the other.

    `words` and `hits` count words of the reference: hits + substitutions + deletions == words. `doubled` of the
    `insertions` belong to a run of the hypothesis that stands twice in a row ("the total the total").
    """

    words: int
    hits: int
    substitutions: int
    deletions: int
    insertions: int
    doubled: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors for each word of the reference: 0.0 is perfect, and more than 1.0 is possible.

        An empty reference has no rate; here it is 0.0 with an empty hypothesis and 1.0 with any other.
        """
        return self.errors / self.words if self.words else float(self.errors > 0)


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Errors for each word of the reference, both compared as `text.normalized_words`; see `Alignment.rate`."""
    return compare(reference, hypothesis).rate


def compare(reference: str, hypothesis: str) -> Alignment:
    """Align two texts by `text.normalized_words`; among shortest edits it is rapidfuzz that chooses."""
    expected, got = normalized_words(reference), normalized_words(hypothesis)
    counts = dict.fromkeys(("equal", "replace", "delete", "insert"), 0)
    doubled = 0
    for edit in Levenshtein.opcodes(expected, got):
        counts[edit.tag] += max(edit.src_end - edit.src_start, edit.dest_end - edit.dest_start)
        if edit.tag == "insert":
            doubled += _doubled(got, edit.dest_start, edit.dest_end)
    return Alignment(len(expected), counts["equal"], counts["replace"], counts["delete"], counts["insert"], doubled)


def _doubled(words: Sequence[str], start: int, end: int) -> int:
    """How many of the inserted words[start:end] belong to a run said twice in a row, one saying of which is inserted.

    Which of the two sayings was inserted is the aligner's whim, and it may even take the end of the first and the
    start of the second: so any pair of equal runs counts that has as many inserted words as one run is long.
    """
    found: set[int] = set()
    for run in range(1, min(end - start, MAX_RUN) + 1):
        same = 0  # how many words up to here are said again `run` words later
        for i in range(max(0, start - run), min(end, len(words) - run)):
            same = same + 1 if words[i] == words[i + run] else 0
            inserted = range(max(i - run + 1, start), min(i + run + 1, end))
            if same >= run and len(inserted) >= run:
                found.update(inserted)
    return len(found)
