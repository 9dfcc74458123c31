"""docx: a Word document in paragraphs; needs python-docx, which `callreel[docx]` brings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime

from callreel.calls.store import Call
from callreel.errors import ExtraMissing
from callreel.text import Segment
from callreel.transcripts.formats.base import Format, FormatOptions, plain
from callreel.transcripts.formats.turns import turns
from callreel.transcripts.store import Transcript

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TITLE_CHARS = 255  # of a document's properties, by Office


def write(call: Call, transcript: Transcript, segments: Sequence[Segment], options: FormatOptions) -> bytes:
    try:
        import docx
    except ImportError:
        raise ExtraMissing(
            "Word documents need the package python-docx.", hint="pip install 'callreel[docx]'", format="docx"
        ) from None
    document = docx.Document()
    title = plain(call.title) or "Transcript"
    properties = document.core_properties
    properties.title, properties.author, properties.comments = title[:TITLE_CHARS], "", ""
    properties.created = properties.modified = datetime.fromisoformat(call.created_at)
    document.add_heading(title)
    for warning in transcript.warnings:
        document.add_paragraph(plain(warning), style="Intense Quote")
    for turn in turns(call, segments, options):
        paragraph = document.add_paragraph()
        if turn.time:
            paragraph.add_run(f"{turn.time} ").italic = True
        if turn.speaker:
            paragraph.add_run(f"{plain(turn.speaker)}: ").bold = True
        paragraph.add_run(turn.text)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


DOCX = Format("docx", "docx", MEDIA_TYPE, write)
