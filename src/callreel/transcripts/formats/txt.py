"""txt: plain lines, one a segment, for people."""

from __future__ import annotations

from collections.abc import Sequence

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.formats.base import Format, FormatOptions, plain
from callreel.transcripts.formats.turns import heading
from callreel.transcripts.store import Transcript


def write(call: Call, _transcript: Transcript, segments: Sequence[Segment], options: FormatOptions) -> bytes:
    return "".join(f"{_line(call, segment, options)}\n" for segment in segments).encode()


def _line(call: Call, segment: Segment, options: FormatOptions) -> str:
    speaker, time = heading(call, segment, options)
    return "".join(
        (
            f"[{time}] " if time else "",
            f"{plain(speaker)}: " if speaker else "",
            plain(segment.text),
        )
    )


TXT = Format("txt", "txt", "text/plain; charset=utf-8", write)
