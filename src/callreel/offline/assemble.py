"""Decoded windows to segments: what was invented is dropped, words are grouped the way they were said."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from callreel.engines.base import Decoded
from callreel.offline.profiles import is_invented
from callreel.offline.repeats import is_echo, without_loops
from callreel.text import DecodeStats, Segment, Word, join_words

PAUSE_S = 0.5  # between two words: a new segment
MAX_SEGMENT_S = 15.0
SENTENCE_END = (".", "?", "!", "。", "？", "！")


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


class TrackAssembler:
    """The segments of one track, out of its windows in order of time. They never overlap nor run backwards."""

    def __init__(self, track: str, *, speaker: str | None = None, word_times: bool = True) -> None:
        self._track, self._speaker, self._word_times = track, speaker, word_times
        self._before: Segment | None = None
        self._seq = 0

    def add(self, start_s: float, end_s: float, decoded: Decoded, language: str | None) -> Iterator[Segment]:
        """Segments of the window that lies from `start_s` to `end_s` on the track, behind all that were added."""
        if is_invented(decoded):
            return
        words = _inside(without_loops(decoded), start_s, end_s)
        for group in groups_of_words(words):
            segment = segment_of(group, track=self._track, seq=self._seq, language=language, decode=decoded.stats)
            if not segment.text or is_echo(segment, self._before):
                continue
            self._before = segment
            self._seq += 1
            yield replace(segment, speaker=self._speaker, words=segment.words if self._word_times else ())


def _inside(words: Iterable[Word], start_s: float, end_s: float) -> Iterator[Word]:
    """Words on the track's clock, none before the one in front of it, none outside its window, whatever it says."""
    at = start_s = round(start_s, 3)
    end_s = max(start_s, round(end_s, 3))
    for word in words:
        moved = word.shifted(start_s)
        start = min(max(moved.start, at), end_s)
        at = min(max(moved.end, start), end_s)
        yield replace(moved, start=start, end=at)


class Merger:
    """Segments of several tracks in one order, by start and then by track, each let go once none can come before it."""

    def __init__(self, n_tracks: int) -> None:
        self._bounds = [0.0] * n_tracks
        self._waiting: list[tuple[float, int, int, Segment]] = []

    def add(self, track: int, segments: Iterable[Segment], next_s: float) -> Iterator[Segment]:
        """Take in the next segments of a track, the following ones of which start at `next_s` or later.

        Gives what is certain by that.
        """
        for segment in segments:
            heapq.heappush(self._waiting, (segment.start, track, segment.seq, segment))
        self._bounds[track] = next_s
        while self._waiting and all(
            self._waiting[0][:2] < (bound, other) or other == self._waiting[0][1]
            for other, bound in enumerate(self._bounds)
        ):
            yield heapq.heappop(self._waiting)[-1]
