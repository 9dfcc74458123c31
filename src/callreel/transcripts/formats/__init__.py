"""The ways to write a transcript down, one file a format."""

from __future__ import annotations

from callreel.transcripts.formats.base import Format
from callreel.transcripts.formats.json_ import JSON
from callreel.transcripts.formats.txt import TXT

FORMATS: dict[str, Format] = {format.name: format for format in (TXT, JSON)}
