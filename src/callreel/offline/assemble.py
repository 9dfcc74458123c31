"""Decoded windows to segments: what was invented is dropped, words are grouped the way they were said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from callreel.engines.base import Decoded
from callreel.text import DecodeStats, Segment, Word, join_words

PAUSE_S = 0.5  # between two words: a new segment
MAX_SEGMENT_S = 15.0
SENTENCE_END = (".", "?", "!", "。", "？", "！")

# Whisper's own thresholds (Radford et al. 2022, section 4.5).
NO_SPEECH_PROB = 0.6
MIN_AVG_LOGPROB = -1.0


def is_invented(decoded: Decoded) -> bool:
    """True for text that Whisper made up over silence or noise: it says itself that nobody speaks, and is not sure."""
    stats = decoded.stats
    return (
        stats.no_speech_prob is not None
        and stats.no_speech_prob > NO_SPEECH_PROB
        and stats.avg_logprob is not None
        and stats.avg_logprob < MIN_AVG_LOGPROB
    )


def groups_of_words(words: Iterable[Word]) -> Iterator[list[Word]]:
    """Words in stretches that end at a pause, at the end of a sentence, or after MAX_SEGMENT_S."""
    group: list[Word] = []
    for word in words:
        if group and (
            word.start - group[-1].end >= PAUSE_S
            or word.end - group[0].start > MAX_SEGMENT_S
            or group[-1].word.rstrip().endswith(SENTENCE_END)
        ):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def segment_of(
    words: Sequence[Word],
    *,
    track: str,
    seq: int,
    language: str | None,
    epoch: int = 1,
    decode: DecodeStats | None = None,
) -> Segment:
    """One completed segment out of words that carry call time."""
    return Segment(
        track=track,
        seq=seq,
        start=words[0].start,
        end=words[-1].end,
        text=join_words(words),
        words=tuple(words),
        language=language,
        epoch=epoch,
        decode=decode or DecodeStats(),
    )


def assemble(parts: Iterable[tuple[float, Decoded]], *, track: str, language: str | None) -> Iterator[Segment]:
    """Segments of one track from (start of the window in seconds, what it says), in order of time."""
    seq = 0
    for offset_s, decoded in parts:
        if is_invented(decoded):
            continue
        for words in groups_of_words(word.shifted(offset_s) for word in decoded.words):
            yield segment_of(words, track=track, seq=seq, language=language, decode=decoded.stats)
            seq += 1
