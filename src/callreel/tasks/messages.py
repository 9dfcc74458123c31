"""What goes over a job child's pipes: its order in, then what it has come to and one outcome out."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from callreel.offline.options import TranscribeOptions
from callreel.offline.outcome import Progress, Transcription
from callreel.text import Segment


class Source(msgspec.Struct, frozen=True):
    """The file to read. With `url` it is fetched to `path` first, unless an earlier attempt has done so."""

    path: str
    url: str | None = None
    allow_networks: tuple[str, ...] = ()
    max_bytes: int = 0
    timeout_s: float = 0.0


class TranscribeOrder(msgspec.Struct, tag="transcribe"):
    """Paths are the server's own; `work` outlives an attempt. The engine is spoken to over its socket."""

    source: Source
    work: str
    engine_socket: str
    options: TranscribeOptions
    batch_min: int
    batch_max: int
    max_audio_s: float


class Progressed(msgspec.Struct, tag="progress"):
    progress: Progress


class Spoken(msgspec.Struct, tag="spoken"):
    """Segments that are certain, each once and in their final order."""

    segments: list[Segment]


class Transcribed(msgspec.Struct, tag="transcribed"):
    transcription: Transcription
    engine: str
    model: str
    usage: dict[str, float]


class Failed(msgspec.Struct, tag="failed"):
    error: dict[str, Any]
    transient: bool


Outcome: TypeAlias = Transcribed | Failed
Report: TypeAlias = Progressed | Spoken | Transcribed | Failed
