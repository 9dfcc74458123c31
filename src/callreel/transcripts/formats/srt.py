"""srt: SubRip's subtitles, which every player knows. It has no rules for names, so a name stands in the text."""

from __future__ import annotations

from collections.abc import Sequence

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.formats.base import Format, FormatOptions, stamp
from callreel.transcripts.formats.cues import cues_of, label
from callreel.transcripts.formats.words import width
from callreel.transcripts.store import Transcript


def write(call: Call, _transcript: Transcript, segments: Sequence[Segment], options: FormatOptions) -> bytes:
    blocks = []
    speaking = None
    for number, cue in enumerate(cues_of(call, segments, options, labels=True), 1):
        named = label(cue.speaker) if cue.speaker != speaking else ""
        speaking = cue.speaker
        times = f"{stamp(cue.start_ms, ',')} --> {stamp(cue.end_ms, ',')}"
        text = named + "\n".join(cue.lines(options, width(named)))
        blocks.append(f"{number}\n{times}\n{text.replace('-->', '->')}\n")
    return "\n".join(blocks).encode()


SRT = Format("srt", "srt", "application/x-subrip", write)
