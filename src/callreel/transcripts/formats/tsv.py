"""tsv: start and end in milliseconds and the text, a line a segment, as OpenAI's whisper writes it."""

from __future__ import annotations

from collections.abc import Sequence

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.formats.base import Format, FormatOptions, milliseconds, plain
from callreel.transcripts.store import Transcript

FORMULA = ("=", "+", "-", "@")


def write(_call: Call, _transcript: Transcript, segments: Sequence[Segment], _options: FormatOptions) -> bytes:
    rows = (f"{milliseconds(s.start)}\t{milliseconds(s.end)}\t{_cell(s.text)}\n" for s in segments)
    return "".join(("start\tend\ttext\n", *rows)).encode()


def _cell(text: str) -> str:
    """With a space ahead of what a spreadsheet would take for a formula, and run."""
    text = plain(text)
    return f" {text}" if text.startswith(FORMULA) else text


TSV = Format("tsv", "tsv", "text/tab-separated-values; charset=utf-8", write)
