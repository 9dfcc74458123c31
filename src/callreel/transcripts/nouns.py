"""Transcripts and segments in the words of the API: what answers, events and files show of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from callreel.calls.store import Call
from callreel.text import Segment


def segment_noun(transcript_id: str, segment: Segment) -> dict[str, Any]:
    """A segment as clients see it; its id names it across transcripts."""
    return {
        "id": f"{transcript_id}:{segment.track}:{segment.seq}",
        "transcript_id": transcript_id,
        "track": segment.track,
        "seq": segment.seq,
        "epoch": segment.epoch,
        "revision": segment.revision,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "speaker": segment.speaker,
        "language": segment.language,
        "completed": segment.completed,
        "words": [asdict(word) for word in segment.words],
    }


def speaker_name(call: Call, segment: Segment) -> str | None:
    """Who speaks: the name the call gives the segment's speaker, or its track's; None where nobody is known.

    On a call of several tracks the track's own name stands for a speaker that is not known.
    """
    track = next((t for t in call.tracks if t.name == segment.track), None)
    label = segment.speaker or (track.speaker if track else None)
    if label is not None:
        return call.speakers.get(label, label)
    return segment.track if len(call.tracks) > 1 else None
