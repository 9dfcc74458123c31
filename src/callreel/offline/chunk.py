"""Where to cut a recording: at pauses, never inside a word, no chunk longer than the engine takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from callreel.audio.pcm import SAMPLE_RATE, Samples, samples
from callreel.audio.vad import Speech

PADDING_S = 0.2  # round each chunk: the VAD is late by a frame or two, soft consonants are lower than its threshold
BREAK_S = 2.0  # a pause this long cuts: engines invent text in silence
QUIET_STEP_S = 0.02
LEAST_SPEECH_S = 0.2  # alone between two breaks: less is a click or a note, of which engines make a word


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples [start, end) of a recording."""

    start: int
    end: int


def chunks(speech: Sequence[Speech], pcm: Samples, *, max_s: float, min_s: float = 0.0) -> list[Chunk]:
    """The speech of `pcm` in chunks of at most `max_s`, in order, not overlapping.

    The engine fills a chunk up to `min_s` with silence: what fits into that is not cut at a long pause either.

    Of the pauses at which a chunk could end, the longest in its second half is taken: a cut between sentences
    costs no accuracy, one between two words of a phrase does.
    """
    padding = 2 * samples(PADDING_S)
    limit, filled = samples(max_s) - padding, samples(min_s) - padding
    pieces = [piece for stretch in _worth_hearing(speech) for piece in _split_long(stretch, pcm, limit)]
    groups: list[list[Speech]] = []
    for piece in pieces:
        if not groups or (
            piece.start - groups[-1][-1].end >= samples(BREAK_S) and piece.end - groups[-1][0].start > filled
        ):
            groups.append([piece])
            continue
        groups[-1].append(piece)
        while groups[-1][-1].end - groups[-1][0].start > limit:
            cut = _best_cut(groups[-1], limit)
            groups[-1:] = [groups[-1][:cut], groups[-1][cut:]]
    return list(_padded([Speech(g[0].start, g[-1].end) for g in groups], len(pcm)))


def _worth_hearing(speech: Sequence[Speech]) -> Iterator[Speech]:
    """What is spoken between two breaks, unless it is too little to be a word."""
    together: list[Speech] = []
    for stretch in [*speech, None]:
        if together and (stretch is None or stretch.start - together[-1].end >= samples(BREAK_S)):
            if sum(s.end - s.start for s in together) >= samples(LEAST_SPEECH_S):
                yield from together
            together = []
        if stretch is not None:
            together.append(stretch)


def _best_cut(group: Sequence[Speech], limit: int) -> int:
    """Index of the piece that begins the next chunk."""
    start = group[0].start
    fitting = [i for i in range(1, len(group)) if group[i - 1].end - start <= limit]
    late = [i for i in fitting if group[i - 1].end - start >= limit // 2] or fitting
    return max(late, key=lambda i: (group[i].start - group[i - 1].end, i))


def _split_long(stretch: Speech, pcm: Samples, limit: int) -> Iterator[Speech]:
    """Speech without any pause for longer than a chunk is cut at its quietest moment."""
    start = stretch.start
    while stretch.end - start > limit:
        cut = quietest(pcm, start + limit // 2, start + limit)
        yield Speech(start, cut)
        start = cut
    yield Speech(start, stretch.end)


def quietest(pcm: Samples, low: int, high: int) -> int:
    """The sample in [low, high) in the middle of the quietest 20 ms: the least bad place to cut."""
    step = samples(QUIET_STEP_S)
    part = np.asarray(pcm[low:high], dtype=np.float32)
    n_steps = len(part) // step
    if n_steps == 0:
        return high
    energy = np.square(part[: n_steps * step].reshape(n_steps, step)).mean(axis=1)
    return low + int(energy.argmin()) * step + step // 2


def _padded(groups: Sequence[Speech], total: int) -> Iterator[Chunk]:
    """Up to PADDING_S more on both sides, but never past the middle of the pause to the neighbour."""
    padding = samples(PADDING_S)
    for i, group in enumerate(groups):
        low = (groups[i - 1].end + group.start) // 2 if i else 0
        high = (group.end + groups[i + 1].start) // 2 if i + 1 < len(groups) else total
        yield Chunk(max(low, group.start - padding), min(high, group.end + padding))


def duration_s(chunk: Chunk) -> float:
    return (chunk.end - chunk.start) / SAMPLE_RATE
