"""Word times where no engine has measured them: spread over the stretch of text they stand in, by length."""

from __future__ import annotations

from collections.abc import Sequence

from callreel.text import Word


def split(text: str) -> list[str]:
    """The words of a text between its spaces, each with the space before it."""
    return [f" {word}" for word in text.split()]


def spread(words: Sequence[str], start: float, end: float, probability: float = 1.0) -> list[Word]:
    """`words` said one after the other between two times, seconds, the long ones longer; blank ones are left out."""
    spoken = [word for word in words if word.strip()]
    whole = sum(len(word.strip()) for word in spoken)
    timed, before = [], 0
    for word in spoken:
        after = before + len(word.strip())
        begin, stop = (start + (end - start) * at / whole for at in (before, after))
        timed.append(Word(word, round(begin, 3), round(stop, 3), probability))
        before = after
    return timed
