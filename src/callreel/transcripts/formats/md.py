"""md: a Markdown document in paragraphs, for notes and wikis."""

from __future__ import annotations

import re
from collections.abc import Sequence

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.formats.base import Format, FormatOptions, plain
from callreel.transcripts.formats.turns import Turn, turns
from callreel.transcripts.store import Transcript

_SPECIAL = re.compile(r"([\\`*_\[\]<~&])")  # what is markup in the middle of a line; CommonMark 0.31, 2.4
_BLOCK_START = re.compile(r"^(\d{1,9})([.)])(?=\s|$)|^([-+=#>])")  # what makes a list or a heading of a paragraph


def write(call: Call, transcript: Transcript, segments: Sequence[Segment], options: FormatOptions) -> bytes:
    paragraphs = [
        f"# {_escaped(call.title or 'Transcript')}",
        *(f"> {_escaped(warning)}" for warning in transcript.warnings),
        *(_paragraph(turn) for turn in turns(call, segments, options)),
    ]
    return ("\n\n".join(paragraphs) + "\n").encode()


def _paragraph(turn: Turn) -> str:
    speaker = f"**{_escaped(turn.speaker)}:**" if turn.speaker else None
    time = f"`{turn.time}`" if turn.time else None
    return " ".join(part for part in (time, speaker, _escaped(turn.text)) if part)


def _escaped(text: str) -> str:
    """`text` as a paragraph that shows exactly it."""
    escaped = _SPECIAL.sub(r"\\\1", plain(text))
    return _BLOCK_START.sub(lambda m: f"{m[1]}\\{m[2]}" if m[1] else f"\\{m[3]}", escaped)


MD = Format("md", "md", "text/markdown; charset=utf-8", write)
