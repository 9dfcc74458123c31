"""The words of a segment's text, each with a time, whatever the engine or an editor left of the word times."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import accumulate, pairwise

from callreel.text import Segment, Word
from callreel.transcripts.formats.base import plain

# Scripts that write no spaces between words. A line may break between any two characters of the first; where it may
# break in the second only a dictionary knows, so there only the engine's own word boundaries count.
_CJK = re.compile(
    "[\u2e80-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff]"
)
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df]")  # Thai, Lao, Burmese, Khmer, Tai
_SMALL_KANA = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ")
_VOWELS_AHEAD = frozenset("เแโใไເແໂໃໄ")  # written before the consonant that they belong to
_NEVER_FIRST = ("Pe", "Pf", "Po", "Mn", "Mc", "Me", "Lm", "Cf")  # categories: closing marks, accents, repeat signs
_NEVER_LAST = ("Ps", "Pi")


def timed_words(segment: Segment) -> list[Word]:
    """What `segment.text` says, word by word, a leading space where one is written; times never run back.

    Where the text was edited, words that the engine heard as well keep their times, and the others share, by length,
    the time that lies between those. Without word times all of them share the segment's.
    """
    text = plain(segment.text)
    words = _cleaned(segment.words)
    if "".join(w.word for w in words).strip() != text:
        words = _spread(split_words(text), words, segment.start, segment.end)
    starts = list(accumulate((word.start for word in words), max, initial=0.0))[1:]
    return [
        replace(word, start=start, end=max(start, min(word.end, after)))
        for word, start, after in zip(words, starts, [*starts[1:], math.inf], strict=False)
    ]


def split_words(text: str) -> list[str]:
    """`text`, which is `plain`, cut where a line may break; each word but the first of a line keeps its space."""
    found: list[str] = []
    for chunk in text.split(" "):
        cuts = [0, *(i for i in range(1, len(chunk)) if _breaks(chunk[i - 1], chunk[i])), len(chunk)]
        pieces = [chunk[a:b] for a, b in pairwise(cuts)]
        found += pieces if not found else [" " + pieces[0], *pieces[1:]]
    return [word for word in found if word]


def may_break(before: str, after: str) -> bool:
    """May a line or a cue end between these two neighbouring words?"""
    if after.startswith(" "):
        return True
    last, first = before[-1:], after[:1]
    return _breaks(last, first) or bool(_UNSPACED.match(last) and _UNSPACED.match(first) and _may_part(last, first))


def width(text: str) -> int:
    """Columns that `text` takes: two for a wide East Asian character, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _breaks(last: str, first: str) -> bool:
    return bool(_CJK.match(last) or _CJK.match(first)) and _may_part(last, first)


def _may_part(last: str, first: str) -> bool:
    return (
        first not in _SMALL_KANA
        and last not in _VOWELS_AHEAD
        and unicodedata.category(first) not in _NEVER_FIRST
        and unicodedata.category(last) not in _NEVER_LAST
    )


def _cleaned(words: Sequence[Word]) -> list[Word]:
    """Words without empty ones and without any white space but one leading space."""
    kept: list[Word] = []
    space = False
    for word in words:
        body = plain(word.word)
        space = space or word.word[:1].isspace()
        if body:
            kept.append(replace(word, word=" " + body if space and kept else body))
            space = False
        space = space or word.word[-1:].isspace()
    return kept


def _spread(texts: Sequence[str], heard: Sequence[Word], start: float, end: float) -> list[Word]:
    """`texts` with the times of the `heard` words that they equal; what is between shares the time between."""
    matcher = SequenceMatcher(
        None, [_folded(text) for text in texts], [_folded(word.word) for word in heard], autojunk=False
    )
    timed: list[Word] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            timed += [replace(w, word=text) for text, w in zip(texts[i1:i2], heard[j1:j2], strict=True)]
            continue
        since = heard[j1].start if j1 < j2 else timed[-1].end if timed else start
        until = heard[j2 - 1].end if j1 < j2 else heard[j2].start if j2 < len(heard) else end
        timed += _share(texts[i1:i2], since, max(since, until))
    return timed


def _share(texts: Sequence[str], start: float, end: float) -> list[Word]:
    """`texts` one after the other from `start` to `end`, each as long as it is wide."""
    widths = [max(1, width(text.strip())) for text in texts]
    scale = (end - start) / max(1, sum(widths))
    found, at = [], start
    for text, columns in zip(texts, widths, strict=True):
        found.append(Word(text, at, at + columns * scale))
        at += columns * scale
    return found


def _folded(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum()) or text
