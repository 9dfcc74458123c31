"""vtt: WebVTT (https://www.w3.org/TR/webvtt1/), the subtitles of browsers, with a voice tag where a name is known."""

from __future__ import annotations

from collections.abc import Sequence

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.formats.base import Format, FormatOptions, plain, stamp
from callreel.transcripts.formats.cues import cues_of
from callreel.transcripts.store import Transcript

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def write(call: Call, transcript: Transcript, segments: Sequence[Segment], options: FormatOptions) -> bytes:
    blocks = ["WEBVTT\n", *(f"NOTE {_escaped(plain(warning))}\n" for warning in transcript.warnings)]
    for cue in cues_of(call, segments, options):
        voice = "" if cue.speaker is None else f"<v {_escaped(cue.speaker)}>"
        text = _escaped("\n".join(cue.lines(options)))
        times = f"{stamp(cue.start_ms, '.')} --> {stamp(cue.end_ms, '.')}"
        blocks.append(f"{times}\n{voice}{text}\n")
    return "\n".join(blocks).encode()


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


VTT = Format("vtt", "vtt", "text/vtt; charset=utf-8", write)
