"""Loops: text that an engine says over and over, though it was said once or never."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import replace

from callreel.engines.base import Decoded
from callreel.offline.profiles import MAX_COMPRESSION_RATIO, MIN_AVG_LOGPROB, NO_SPEECH_PROB
from callreel.text import Segment, Word, join_words, normalized_words

LONGEST_PHRASE = 16  # words
FEWEST_PHRASES, FEWEST_WORDS = 3, 6  # repeats that can be a loop: of a phrase, of one word ("no no no" is speech)
# Inside one word: six times the same letters. Digits are left alone, people do say a billion.
STUTTER = re.compile(r"([^\W\d]{1,12}?)\1{5,}")
QUICKEST_WORD_S = 0.05  # nobody speaks faster: such words were said over no sound


def without_loops(decoded: Decoded) -> tuple[Word, ...]:
    """The words of a window, of each loop only its first round.

    A loop is a phrase that is said several times in a row, and either so often that the text packs better than
    Whisper's own threshold allows, or faster than anybody speaks.
    """
    words = decoded.words
    keys = [" ".join(normalized_words(word.word)) or word.word for word in words]
    kept, at = list[Word](), 0
    while at < len(words):
        length, rounds = _loop_at(keys, words, at)
        kept.extend(replace(word, word=STUTTER.sub(r"\1", word.word)) for word in words[at : at + length])
        at += length * rounds
    return tuple(kept)


def _loop_at(keys: Sequence[str], words: Sequence[Word], at: int) -> tuple[int, int]:
    """(words of the phrase, rounds) of the longest loop that begins at `at`; (1, 1) where none does."""
    best = (1, 1)
    for length in range(1, min(LONGEST_PHRASE, (len(keys) - at) // FEWEST_PHRASES) + 1):
        phrase, rounds = keys[at : at + length], 1
        while keys[at + rounds * length : at + (rounds + 1) * length] == phrase:
            rounds += 1
        fewest = FEWEST_WORDS if len(set(phrase)) == 1 else FEWEST_PHRASES
        # Not `rounds * length` alone: "a a a a" is also two rounds of "a a", and its phrase is "a".
        if rounds >= fewest and rounds * length > best[0] * best[1] and _is_loop(words[at : at + rounds * length]):
            best = (length, rounds)
    return best


def _is_loop(words: Sequence[Word]) -> bool:
    data = join_words(words).encode()
    packed = len(data) / len(zlib.compress(data)) if data else 0.0
    return packed > MAX_COMPRESSION_RATIO or _too_quick(words[-1].end - words[0].start, len(words))


def is_echo(segment: Segment, before: Segment | None) -> bool:
    """True if `segment` says just what the one before it said, and nothing speaks for its having been said again."""
    if before is None or normalized_words(segment.text) != normalized_words(before.text):
        return False
    stats = segment.decode
    return (
        (stats.no_speech_prob is not None and stats.no_speech_prob > NO_SPEECH_PROB)
        or (stats.avg_logprob is not None and stats.avg_logprob < MIN_AVG_LOGPROB)
        or _too_quick(segment.end - segment.start, max(1, len(segment.words)))
    )


def _too_quick(duration_s: float, n_words: int) -> bool:
    return duration_s < QUICKEST_WORD_S * n_words
