"""The ways to write a transcript down, one file a format."""

from __future__ import annotations

from callreel.errors import InvalidInput
from callreel.transcripts.formats.base import Format, FormatOptions
from callreel.transcripts.formats.docx_ import DOCX
from callreel.transcripts.formats.json_ import JSON
from callreel.transcripts.formats.md import MD
from callreel.transcripts.formats.srt import SRT
from callreel.transcripts.formats.tsv import TSV
from callreel.transcripts.formats.txt import TXT
from callreel.transcripts.formats.vtt import VTT

__all__ = ["FORMATS", "Format", "FormatOptions", "format_named"]

FORMATS: dict[str, Format] = {format.name: format for format in (TXT, SRT, VTT, JSON, TSV, MD, DOCX)}


def format_named(name: str) -> Format:
    """The format of this name. Raises InvalidInput, naming those there are."""
    if name not in FORMATS:
        raise InvalidInput(
            f"There is no transcript format {name!r}", hint=f"Formats: {', '.join(FORMATS)}", field="format"
        )
    return FORMATS[name]
