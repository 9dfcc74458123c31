"""txt: plain lines, one a segment, for people."""

from __future__ import annotations

from collections.abc import Sequence

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.formats.base import Format
from callreel.transcripts.nouns import speaker_name
from callreel.transcripts.store import Transcript


def render(call: Call, _transcript: Transcript, segments: Sequence[Segment]) -> str:
    return "".join(f"{_line(call, segment)}\n" for segment in segments if segment.text)


def _line(call: Call, segment: Segment) -> str:
    name = speaker_name(call, segment)
    return segment.text if name is None else f"{name}: {segment.text}"


TXT = Format("txt", "text/plain; charset=utf-8", render)
