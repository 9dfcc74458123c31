"""What goes over a job child's pipes: its order in, then progress and one outcome out."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from callreel.offline.pipeline import Progress, TranscribeOptions, Transcription


class TranscribeOrder(msgspec.Struct, tag="transcribe"):
    """Paths are the server's own. The engine is spoken to over its socket, with `engine_warnings` known before."""

    source: str
    work: str
    engine_socket: str
    options: TranscribeOptions


class Progressed(msgspec.Struct, tag="progress"):
    progress: Progress


class Transcribed(msgspec.Struct, tag="transcribed"):
    transcription: Transcription
    engine: str
    model: str
    usage: dict[str, float]


class Failed(msgspec.Struct, tag="failed"):
    error: dict[str, Any]
    transient: bool


Report: TypeAlias = Progressed | Transcribed | Failed
