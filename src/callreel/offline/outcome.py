"""What a transcription tells while it runs, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from callreel.text import Segment

TRACK = "mix"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transcription is: `percent` 0..100, `eta_s` and `rtfx` None while unknown."""

    percent: float
    step: str
    eta_s: float | None = None
    rtfx: float | None = None


@dataclass(frozen=True, slots=True)
class SourceTrack:
    """A track of the recording: the `channel` (from 0) that it is, None for the mix of all, and who is on it."""

    name: str
    channel: int | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcription:
    """The outcome: segments in order of time, the language spoken, and the seconds of audio they came from."""

    segments: tuple[Segment, ...]
    language: str | None
    duration_s: float
    tracks: tuple[SourceTrack, ...] = (SourceTrack(TRACK),)
    warnings: tuple[str, ...] = field(default=())
