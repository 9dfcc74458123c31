"""File to transcript: the one way, whoever asks (command line, job, synchronous API)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import msgspec

import callreel
from callreel.audio import spool as spools
from callreel.audio.decode import MAX_DURATION_S, Sound
from callreel.audio.pcm import Samples, seconds
from callreel.audio.scan import SpeechScan
from callreel.audio.spool import Spool, fingerprint, spool
from callreel.engines.base import Decoded, Engine
from callreel.errors import Cancelled, InvalidInput
from callreel.offline.assemble import Merger, TrackAssembler
from callreel.offline.checkpoint import Checkpoint, Past, Plan
from callreel.offline.chunk import Chunk, chunks
from callreel.offline.decoding import Decoding, batch_size, items_of
from callreel.offline.options import TranscribeOptions
from callreel.offline.outcome import TRACK, Progress, SourceTrack, Transcription
from callreel.offline.profiles import PROFILES
from callreel.text import Segment

__all__ = ["LISTENING", "TRACK", "Progress", "SourceTrack", "TranscribeOptions", "Transcription", "transcribe"]

DECODING, LISTENING = 5.0, 10.0  # percent done when the transcribing begins, as measured: the rest is the engine


def transcribe(
    source: Path,
    engine: Engine,
    options: TranscribeOptions,
    *,
    work: Path,
    checkpoint: Checkpoint | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_segments: Callable[[Sequence[Segment]], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    batch_min: int = 1,
    batch_max: int = 8,
    max_duration_s: float = MAX_DURATION_S,
) -> Transcription:
    """Write down the audio of `source`. `work` is a folder for its decoded sound.

    With a `checkpoint`, which `work` must outlive too, another attempt at the same request goes on where this one
    ends; without one nothing is left in `work`. `on_segments` gets segments in their final order as soon as they are
    certain. As many batches as the engine takes at once are under way; what they say does not depend on that.

    Raises UnreadableMedia, TooLong, EngineUnavailable, StorageUnavailable, InvalidInput for what the engine cannot
    do, and Cancelled when `cancelled()` turns true (asked between batches).
    """
    options.check(engine.capabilities)
    checkpoint = checkpoint or Checkpoint()
    try:
        with ThreadPoolExecutor(max(1, engine.capabilities.parallel), "callreel-offline") as pool:
            run = _Run(engine, options, checkpoint, pool, on_progress, on_segments, cancelled)
            return run.transcribe(source, work, batch_min, batch_max, max_duration_s)
    finally:
        if not checkpoint.kept:
            spools.remove(work)


class _Run:
    """One attempt at one recording."""

    def __init__(
        self,
        engine: Engine,
        options: TranscribeOptions,
        checkpoint: Checkpoint,
        pool: Executor,
        on_progress: Callable[[Progress], None],
        on_segments: Callable[[Sequence[Segment]], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._engine, self._options, self._checkpoint, self._pool = engine, options, checkpoint, pool
        self._on_progress, self._on_segments, self._cancelled = on_progress, on_segments, cancelled

    def transcribe(
        self, source: Path, work: Path, batch_min: int, batch_max: int, max_duration_s: float
    ) -> Transcription:
        self._on_progress(Progress(0, "decode"))
        scans: list[SpeechScan] = []

        def written(tracks: Sequence[Samples], sound: Sound) -> None:
            if self._cancelled():
                raise Cancelled()
            scans.extend(SpeechScan(pcm, self._pool) for pcm in tracks[len(scans) :])
            for scan in scans:
                scan.advance()
            if sound.claimed_s:
                share = min(1.0, sound.duration_s / sound.claimed_s)
                self._on_progress(Progress(round(DECODING * share, 1), "decode"))

        with spool(source, work, self._options.channels, max_duration_s=max_duration_s, on_written=written) as sound:
            tracks = self._tracks(len(sound.tracks))
            past = self._checkpoint.begin(self._digest(source, batch_min, batch_max))
            self._on_progress(Progress(DECODING, "find speech"))
            if past.plan is None:
                cut = self._cut(sound, scans)
                n_windows = sum(map(len, cut))
                size = batch_size(n_windows, self._engine.capabilities, least=batch_min, most=batch_max)
                past.plan = Plan(cut, size, max(1, self._engine.capabilities.parallel))
                self._checkpoint.add(past.plan)
            language, segments = self._listen(sound, tracks, past.plan, past)
        self._on_progress(Progress(100, "done", 0.0))
        return Transcription(
            tuple(segments), language, round(seconds(sound.n_samples), 3), tuple(tracks), tuple(sound.warnings)
        )

    def _tracks(self, n: int) -> list[SourceTrack]:
        speakers = self._options.speakers
        if len(speakers) > n:
            raise InvalidInput(
                f"{len(speakers)} speakers are named, but the file has {n} channels", field="speakers", channels=n
            )
        named = [*speakers, *[None] * (n - len(speakers))]
        if self._options.channels == "mix":
            return [SourceTrack(TRACK, None, named[0])]
        return [SourceTrack(f"channel-{i + 1}", i, speaker) for i, speaker in enumerate(named)]

    def _digest(self, source: Path, batch_min: int, batch_max: int) -> str:
        """Names a request: whatever may change a word of its text."""
        can = self._engine.capabilities
        asked = (
            callreel.__version__,
            fingerprint(source),
            self._options,
            PROFILES[self._options.profile],
            (self._engine.name, self._engine.model, can.min_window_s, can.max_window_s),
            (batch_min, batch_max),
        )
        return hashlib.sha256(msgspec.msgpack.encode(asked)).hexdigest()

    def _cut(self, sound: Spool, scans: Sequence[SpeechScan]) -> list[list[Chunk]]:
        # A scan reads on in the files it began with; those of a spool that was there already had none.
        scans = [*scans, *(SpeechScan(pcm, self._pool) for pcm in sound.tracks[len(scans) :])]
        found, can = [], self._engine.capabilities
        for scan, pcm in zip(scans, sound.tracks, strict=True):
            if self._cancelled():
                raise Cancelled()
            found.append(chunks(scan.stretches(), pcm, max_s=can.max_window_s, min_s=can.min_window_s))
        return found

    def _listen(
        self, sound: Spool, tracks: Sequence[SourceTrack], plan: Plan, past: Past
    ) -> tuple[str | None, list[Segment]]:
        items = items_of(plan.tracks)
        durations = [item.duration_s for item in items]
        decoding = Decoding(
            self._engine,
            self._options,
            items,
            sound.tracks,
            plan=plan,
            past=past,
            checkpoint=self._checkpoint,
            pool=self._pool,
            cancelled=self._cancelled,
        )
        began, done_s, total_s = time.monotonic(), 0.0, sum(durations)
        before_s: float | None = None  # done by earlier attempts
        language = decoding.language() if items else self._options.language
        written = "en" if self._options.task == "translate" else language
        out = _Out(tracks, plan.tracks, self._options.word_times, written)
        segments: list[Segment] = []
        for found in decoding.decode(language):
            certain = list(out.add({(items[i].track, items[i].chunk.start): decoded for i, decoded in found.items()}))
            segments += certain
            if certain:
                self._on_segments(certain)
            done_s += sum(durations[i] for i in found)
            if before_s is None:
                before_s = sum(durations[i] for i in past.done)
                if not done_s:
                    continue
            share, spent = min(1.0, done_s / total_s), time.monotonic() - began
            now_s = done_s - before_s
            eta_s = round(spent * (total_s - done_s) / now_s, 1) if now_s > 0 else None
            rtfx = round(seconds(sound.n_samples) * now_s / total_s / spent, 1) if now_s > 0 else None
            self._on_progress(Progress(round(LISTENING + (99 - LISTENING) * share, 1), "transcribe", eta_s, rtfx))
        return language, segments


class _Out:
    """What windows say, as it comes, to segments in their final order."""

    def __init__(
        self, tracks: Sequence[SourceTrack], cut: Sequence[Sequence[Chunk]], word_times: bool, language: str | None
    ) -> None:
        self._tracks = [TrackAssembler(t.name, speaker=t.speaker, word_times=word_times) for t in tracks]
        self._cut, self._language = [list(pieces) for pieces in cut], language
        self._next = [0 for _ in tracks]
        self._decoded: dict[tuple[int, int], Decoded] = {}
        self._merger = Merger(len(tracks))
        for track in range(len(tracks)):
            list(self._merger.add(track, (), self._next_s(track)))

    def add(self, decoded: dict[tuple[int, int], Decoded]) -> Iterator[Segment]:
        """By (track, first sample of the window); gives the segments that are certain now."""
        self._decoded |= decoded
        for track, pieces in enumerate(self._cut):
            while self._next[track] < len(pieces):
                chunk = pieces[self._next[track]]
                said = self._decoded.pop((track, chunk.start), None)
                if said is None:
                    break
                self._next[track] += 1
                segments = self._tracks[track].add(seconds(chunk.start), seconds(chunk.end), said, self._language)
                yield from self._merger.add(track, segments, self._next_s(track))

    def _next_s(self, track: int) -> float:
        pieces, at = self._cut[track], self._next[track]
        return round(seconds(pieces[at].start), 3) if at < len(pieces) else float("inf")
