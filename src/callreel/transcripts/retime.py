"""New text for words that have times: what stays keeps its times, what changed shares those of what it replaced."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from callreel.storage.fulltext import BREAK, indexed
from callreel.text import Word

_ATOM = re.compile(rf"[^\s{BREAK}]+")


@dataclass(frozen=True, slots=True)
class _Atom:
    """The least that an edit changes: a word where words are spaced, a character where they are not. `lead` is the
    white space before it."""

    lead: str
    text: str
    start: float = 0.0
    end: float = 0.0
    probability: float = 1.0
    word: int = -1  # number of the word it comes from
    size: int = 0  # how many atoms that word has

    @property
    def key(self) -> str:
        """What two spellings of one spoken word share: no case, no punctuation."""
        kept = "".join(c for c in self.text.casefold() if unicodedata.category(c)[0] in "LNM")
        return kept or self.text


def retimed(words: Sequence[Word], text: str, start: float, end: float) -> tuple[Word, ...]:
    """`text` (no white space at its ends) as words that lie within `start`..`end`, seconds, in order.

    A word that `words` has at this place already, but for case and punctuation, keeps its times and probability. Words
    that replace others share their span by length; words put in between get what time lies between their neighbours.
    Without times to go by there are no words.
    """
    if not words:
        return ()
    old, new = list(_timed_atoms(words)), list(_atoms(text))
    changes = difflib.SequenceMatcher(None, [a.key for a in old], [a.key for a in new], autojunk=False).get_opcodes()
    found: list[Word] = []
    for kind, i, i_end, j, j_end in changes:
        if kind == "equal":
            found += _kept(old[i:i_end], new[j:j_end])
        elif j < j_end:
            last = found[-1].end if found else start
            following = old[i_end].start if i_end < len(old) else end
            span = (old[i].start, old[i_end - 1].end) if kind == "replace" else (last, following)
            found += _shared(new[j:j_end], max(last, span[0]), max(last, span[1]))
    return tuple(found)


def _atoms(text: str) -> Iterator[_Atom]:
    broken = indexed(text)
    last = 0
    for match in _ATOM.finditer(broken):
        between = broken[last : match.start()].replace(BREAK, "")
        yield _Atom(between, match.group())
        last = match.end()


def _timed_atoms(words: Sequence[Word]) -> Iterator[_Atom]:
    """The atoms of words; several in one word share its span by length."""
    for number, word in enumerate(words):
        atoms = list(_atoms(word.word))
        for atom, timed in zip(atoms, _shared(atoms, word.start, word.end), strict=True):
            yield _Atom(atom.lead, atom.text, timed.start, timed.end, word.probability, number, len(atoms))


def _kept(old: Sequence[_Atom], new: Sequence[_Atom]) -> Iterator[Word]:
    """The atoms of `new`, each with the times of its fellow in `old`; together again where they all were one word."""
    at = 0
    while at < len(old):
        size = old[at].size
        whole = at + size <= len(old) and all(a.word == old[at].word for a in old[at : at + size])
        size = size if whole and not any(a.lead for a in new[at + 1 : at + size]) else 1
        first, last = old[at], old[at + size - 1]
        text = "".join(a.lead + a.text for a in new[at : at + size])
        yield Word(text, first.start, last.end, first.probability)
        at += size


def _shared(atoms: Sequence[_Atom], start: float, end: float) -> Iterator[Word]:
    """Words for `atoms` that share the span by length."""
    total, done, begin = sum(len(a.text) for a in atoms), 0, start
    for atom in atoms:
        done += len(atom.text)
        stop = end if done == total else max(start, min(end, round(start + (end - start) * done / total, 3)))
        yield Word(atom.lead + atom.text, begin, stop)
        begin = stop
