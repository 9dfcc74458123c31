"""json: everything that is known, in the words of the API, for programs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from callreel.calls.store import Call
from callreel.text import Segment, text_of
from callreel.transcripts.formats.base import Format, FormatOptions
from callreel.transcripts.nouns import segment_noun
from callreel.transcripts.store import Transcript


def write(call: Call, transcript: Transcript, segments: Sequence[Segment], _options: FormatOptions) -> bytes:
    document = {
        "call_id": call.id,
        "transcript": transcript.id,
        "language": transcript.language,
        "engine": transcript.engine,
        "model": transcript.model,
        "warnings": transcript.warnings,
        "text": text_of(segments),
        "segments": [segment_noun(transcript.id, segment) for segment in segments],
    }
    return msgspec.json.encode(document)


JSON = Format("json", "json", "application/json", write)
