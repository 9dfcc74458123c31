"""All windows of a recording through the engine, several batches at once, in an order that no thread decides."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from callreel.audio.pcm import Samples, seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Engine, Window
from callreel.errors import Cancelled
from callreel.offline.checkpoint import Checkpoint, Done, Past, Plan
from callreel.offline.chunk import Chunk
from callreel.offline.options import TranscribeOptions
from callreel.offline.profiles import HOT, PROFILES, is_doubtful, is_invented
from callreel.text import join_words

LANGUAGE_PROBES = 3  # windows, spread over the recording, that vote on its language
CONTEXT_CHARACTERS = 600  # of the text before a window: about what Whisper takes in
SORTED_BATCHES = 4  # for each that runs at once: windows are sorted by length among so many batches
CANCEL_POLL_S = 0.25

Batch: TypeAlias = tuple[int, ...]
Lane: TypeAlias = list[Batch]  # batches of which each needs what the ones before it say


@dataclass(frozen=True, slots=True)
class Item:
    """A window to be decoded: where it lies, and on which track. Items are in order of time."""

    track: int
    chunk: Chunk

    @property
    def duration_s(self) -> float:
        return seconds(self.chunk.end - self.chunk.start)


def items_of(tracks: Sequence[Sequence[Chunk]]) -> list[Item]:
    items = [Item(track, chunk) for track, pieces in enumerate(tracks) for chunk in pieces]
    return sorted(items, key=lambda item: (item.chunk.start, item.track))


def batch_size(n_windows: int, can: Capabilities, *, least: int, most: int) -> int:
    """How many windows a batch holds: few enough that all of `can.parallel` have work up to the end."""
    most = max(1, least, min(most, can.batch))
    rounds = -(-n_windows // (can.parallel * most)) or 1
    return max(1, min(most, max(least, -(-n_windows // (rounds * can.parallel)))))


def batches(indices: Sequence[int], durations: Sequence[float], *, size: int, parallel: int) -> Iterator[Batch]:
    """`indices` in batches of `size`, those next to each other sorted by length, the longest first.

    All windows of a batch are padded to the longest, and an encoder's cost grows faster than the length.
    """
    block = size * parallel * SORTED_BATCHES
    for at in range(0, len(indices), block):
        part = sorted(indices[at : at + block], key=lambda i: (-durations[i], i))
        yield from (tuple(part[b : b + size]) for b in range(0, len(part), size))


class Decoding:
    """The decodes of one recording. What was `past` is not decoded again, and its text is what it would be again."""

    def __init__(
        self,
        engine: Engine,
        options: TranscribeOptions,
        items: Sequence[Item],
        tracks: Sequence[Samples],
        *,
        plan: Plan,
        past: Past,
        checkpoint: Checkpoint,
        pool: Executor,
        cancelled: Callable[[], bool],
    ) -> None:
        self._engine, self._options, self._items, self._tracks = engine, options, items, tracks
        self._plan, self._past, self._checkpoint = plan, past, checkpoint
        self._pool, self._cancelled = pool, cancelled
        self._profile = PROFILES[options.profile]
        self._durations = [item.duration_s for item in items]
        self._parallel = max(1, engine.capabilities.parallel)

    def language(self) -> str | None:
        """The language of the recording: the one asked for, or that most of a few windows are in."""
        choice = [self._options.language] if self._options.language else [*self._options.languages]
        only = choice or self._engine.capabilities.languages
        if len(only) == 1:
            return only[0]
        probes = self._probes()
        size = -(-len(probes) // self._plan.parallel) or 1
        formed = [tuple(probes[at : at + size]) for at in range(0, len(probes), size)]
        lanes = [[batch] for batch in formed if batch[0] not in self._past.probed]
        for found in self._run(lanes, None, probe=True):
            self._past.probed.update(found)
        votes: dict[str | None, float] = defaultdict(float)
        for i in probes:
            heard = self._past.probed[i]
            if not choice or heard.language in choice:
                votes[heard.language] += heard.language_probability * self._durations[i]
        return max(votes, key=lambda language: votes[language], default=choice[0] if choice else None)

    def decode(self, language: str | None) -> Iterator[Mapping[int, Decoded]]:
        """What each window says, by its index, as it becomes known; what is known already comes first."""
        known = {} if self._profile.sequential else self._in(language)
        known |= self._past.done
        yield known
        missing = [i for i in range(len(self._items)) if i not in known]
        if self._profile.sequential:
            by_track: dict[int, Lane] = defaultdict(list)
            for i in missing:
                by_track[self._items[i].track].append((i,))
            lanes = list(by_track.values())
        else:
            # Formed as if nothing had been done, so that a batch is the same in every attempt.
            fresh = [i for i in range(len(self._items)) if i not in self._in(language)]
            formed = batches(fresh, self._durations, size=self._plan.batch_size, parallel=self._plan.parallel)
            lanes = [[batch] for batch in formed if batch[0] not in known]
        yield from self._run(lanes, language)

    def _probes(self) -> list[int]:
        """The longest window of each part of the recording: the longer, the surer."""
        n = len(self._items)
        bounds = [n * i // LANGUAGE_PROBES for i in range(LANGUAGE_PROBES + 1)]
        parts = [range(low, high) for low, high in pairwise(bounds) if low < high]
        return [max(part, key=lambda i: (self._durations[i], -i)) for part in parts]

    def _in(self, language: str | None) -> dict[int, Decoded]:
        """Those probes that were decoded in the language of the recording need no second decode."""
        return {i: decoded for i, decoded in self._past.probed.items() if decoded.language == language}

    def _run(self, lanes: Sequence[Lane], language: str | None, *, probe: bool = False) -> Iterator[dict[int, Decoded]]:
        """What each batch says, in the order in which they end. Waits for those under way if it is left before."""
        waiting = [(lane[0], lane) for lane in lanes if lane]
        heapq.heapify(waiting)
        running: dict[Future[dict[int, Decoded]], Lane] = {}
        try:
            while waiting or running:
                if self._cancelled():
                    raise Cancelled()
                while waiting and len(running) < self._parallel:
                    batch, lane = heapq.heappop(waiting)
                    prompts = [self._prompt(i) for i in batch]
                    running[self._pool.submit(self._call, batch, prompts, language, probe)] = lane[1:]
                ended, _ = wait(running, CANCEL_POLL_S, FIRST_COMPLETED)
                for future in ended:
                    lane, found = running.pop(future), future.result()
                    self._checkpoint.add(Done(found, probe))
                    if not probe:
                        self._past.done.update(found)
                    if lane:
                        heapq.heappush(waiting, (lane[0], lane))
                    yield found
        finally:
            wait(running)

    def _call(self, batch: Batch, prompts: Sequence[str], language: str | None, probe: bool) -> dict[int, Decoded]:
        windows = [Window(self._pcm(i), prompt) for i, prompt in zip(batch, prompts, strict=True)]
        options = DecodeOptions(
            language=language,
            languages=self._options.languages,
            task=self._options.task,
            temperature=self._options.temperature,
            hotwords=self._options.hotwords,
            word_times=self._options.word_times,
        )
        # One window after another, only the language is kept of a probe.
        profile = PROFILES["fast"] if probe and self._profile.sequential else self._profile
        return dict(zip(batch, profile.decode(self._engine, windows, options), strict=True))

    def _pcm(self, i: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        chunk = self._items[i].chunk
        return np.asarray(self._tracks[self._items[i].track][chunk.start : chunk.end])

    def _prompt(self, i: int) -> str:
        """The user's prompt, and behind it, one window after another, what was said on the track before."""
        said, length, track = list[str](), len(self._options.prompt), self._items[i].track
        if self._profile.sequential:
            for before in range(i - 1, -1, -1):
                if self._items[before].track != track:
                    continue
                decoded = self._past.done.get(before)
                if decoded is None or is_doubtful(decoded) or decoded.stats.temperature > HOT:
                    break
                text = "" if is_invented(decoded) else join_words(decoded.words)
                length += len(text)
                if length > CONTEXT_CHARACTERS:
                    break
                said.append(text)
        return " ".join(part for part in [self._options.prompt, *reversed(said)] if part)
