"""Turns: what one voice says before another does, in paragraphs for readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.formats.base import FormatOptions, clock_time, plain
from callreel.transcripts.nouns import speaker_name

SILENCE_S = 3.0  # a longer one begins a new paragraph
PARAGRAPH_CHARS = 600  # so does the next segment after so much text


@dataclass(frozen=True, slots=True)
class Turn:
    """One paragraph; `time` (hh:mm:ss) and `speaker` are None where they are not known or not wanted."""

    text: str
    speaker: str | None
    time: str | None


def turns(call: Call, segments: Sequence[Segment], options: FormatOptions) -> list[Turn]:
    """The paragraphs of segments that are in order of time."""
    groups: list[list[Segment]] = []
    for segment in segments:
        if groups and _goes_on(groups[-1], segment):
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return [
        Turn(
            " ".join(plain(segment.text) for segment in group),
            *heading(call, group[0], options),
        )
        for group in groups
    ]


def heading(call: Call, segment: Segment, options: FormatOptions) -> tuple[str | None, str | None]:
    """Who speaks and when, as far as `options` ask for it."""
    return (
        speaker_name(call, segment) if options.speakers else None,
        clock_time(segment.start) if options.timestamps else None,
    )


def _goes_on(group: Sequence[Segment], segment: Segment) -> bool:
    last = group[-1]
    return (
        (last.track, last.speaker) == (segment.track, segment.speaker)
        and segment.start - last.end <= SILENCE_S
        and sum(len(s.text) for s in group) < PARAGRAPH_CHARS
    )
