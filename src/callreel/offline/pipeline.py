"""File to transcript: the one way, whoever asks (command line, job, synchronous API)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from callreel.audio.decode import open_spool, spool
from callreel.audio.pcm import Pcm, seconds
from callreel.audio.vad import detect_speech
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Engine, Window
from callreel.errors import Cancelled, InvalidInput
from callreel.offline.assemble import assemble
from callreel.offline.chunk import Chunk, chunks
from callreel.text import Segment

TRACK = "mix"
LANGUAGE_PROBES = 3  # chunks, spread over the recording, that vote on its language
DECODING, LISTENING = 5.0, 10.0  # percent done when the transcribing begins, as measured: the rest is the engine


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """What the user may choose. `language` None: detect. `prompt` and `hotwords` steer spelling."""

    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    hotwords: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transcription is: `percent` 0..100, `eta_s` None while unknown."""

    percent: float
    step: str
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Transcription:
    """The outcome: segments in order of time, the language they are in, and the seconds of audio they came from."""

    segments: tuple[Segment, ...]
    language: str | None
    duration_s: float
    warnings: tuple[str, ...] = field(default=())


def transcribe(
    source: Path,
    engine: Engine,
    options: TranscribeOptions,
    *,
    work: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Transcription:
    """Write down the audio of `source`; `work` is a folder for the spool, which is removed again.

    Raises UnreadableMedia, EngineUnavailable, InvalidInput for what the engine cannot do, and Cancelled when
    `cancelled()` turns true (asked between batches).
    """
    _check(options, engine.capabilities)
    path = work / "audio.s16"
    try:
        on_progress(Progress(0, "decode"))
        spool(source, path)
        pcm = open_spool(path)
        on_progress(Progress(DECODING, "find speech"))
        speech = detect_speech(pcm)
        pieces = chunks(speech, pcm, max_s=engine.capabilities.max_window_s)
        run = _Run(engine, options, pcm, pieces, on_progress, cancelled)
        language, decoded = run.decode()
        parts = ((seconds(chunk.start), part) for chunk, part in zip(pieces, decoded, strict=True))
        segments = tuple(assemble(parts, track=TRACK, language=language))
        on_progress(Progress(100, "done", 0.0))
        return Transcription(segments, language, round(seconds(len(pcm)), 3))
    finally:
        path.unlink(missing_ok=True)


def _check(options: TranscribeOptions, can: Capabilities) -> None:
    if options.task == "translate" and not can.translate:
        raise InvalidInput("This engine does not translate", field="task")
    if options.language is not None and can.languages and options.language not in can.languages:
        raise InvalidInput(
            f"This engine has no language {options.language!r}",
            hint=f"It has: {', '.join(can.languages)}",
            field="language",
        )


class _Run:
    """The decodes of one recording. Batches are formed by chunk index, so a repeated run gives the same text."""

    def __init__(
        self,
        engine: Engine,
        options: TranscribeOptions,
        pcm: Pcm,
        pieces: Sequence[Chunk],
        on_progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._engine, self._options = engine, options
        self._windows = [
            lambda chunk=chunk: Window(np.array(pcm[chunk.start : chunk.end]), options.prompt)  # read when needed
            for chunk in pieces
        ]
        self._durations = [seconds(chunk.end - chunk.start) for chunk in pieces]
        self._on_progress, self._cancelled = on_progress, cancelled
        self._began = time.monotonic()
        self._done_s = 0.0

    def decode(self) -> tuple[str | None, list[Decoded]]:
        """The language of the recording and one Decoded a chunk."""
        language, known = self._options.language, dict[int, Decoded]()
        if language is None and self._windows:
            language, known = self._vote()
        results = dict(known)
        for batch in self._batches([i for i in range(len(self._windows)) if i not in known]):
            results.update(zip(batch, self._call(batch, language), strict=True))
        return language, [results[i] for i in range(len(self._windows))]

    def _vote(self) -> tuple[str | None, dict[int, Decoded]]:
        """Each probe's decode says its language; those in the winner's language need no second decode."""
        n = len(self._windows)
        probes = sorted({i * n // LANGUAGE_PROBES for i in range(LANGUAGE_PROBES)} & set(range(n)))
        heard = {i: d for batch in self._batches(probes) for i, d in zip(batch, self._call(batch, None), strict=True)}
        votes: dict[str | None, float] = defaultdict(float)
        for i, decoded in heard.items():
            votes[decoded.language] += decoded.language_probability * self._durations[i]
        winner = max(votes, key=lambda language: votes[language])
        return winner, {i: decoded for i, decoded in heard.items() if decoded.language == winner}

    def _batches(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        size = max(1, self._engine.capabilities.batch)
        for at in range(0, len(indices), size):
            yield indices[at : at + size]

    def _call(self, batch: Sequence[int], language: str | None) -> list[Decoded]:
        if self._cancelled():
            raise Cancelled()
        options = DecodeOptions(language=language, task=self._options.task, hotwords=self._options.hotwords)
        decoded = self._engine.decode([self._windows[i]() for i in batch], options)
        self._done_s += sum(self._durations[i] for i in batch)
        share = min(1.0, self._done_s / sum(self._durations))
        spent = time.monotonic() - self._began
        eta_s = round(spent / share - spent, 1)
        self._on_progress(Progress(round(LISTENING + (99 - LISTENING) * share, 1), "transcribe", eta_s))
        return decoded
