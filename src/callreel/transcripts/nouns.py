"""Transcripts and segments in the words of the API: what answers, events and files show of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from callreel.calls.store import Call
from callreel.errors import NotFound
from callreel.text import Segment


def segment_noun(transcript_id: str, segment: Segment) -> dict[str, Any]:
    """A segment as clients see it; its id names it across transcripts."""
    return {
        "id": segment_id(transcript_id, segment.track, segment.seq),
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
        "edited": segment.edited,
    }


def segment_id(transcript_id: str, track: str, seq: int) -> str:
    return f"{transcript_id}:{track}:{seq}"


def segment_key(segment_id: str) -> tuple[str, str, int]:
    """The (transcript_id, track, seq) that a segment's id names. Raises NotFound for what is no such id."""
    transcript_id, _, rest = segment_id.partition(":")
    track, _, seq = rest.rpartition(":")
    if not (track and seq.isascii() and seq.isdigit() and len(seq) < 10):
        raise NotFound(segment_id=segment_id)
    return transcript_id, track, int(seq)


def speaker_name(call: Call, segment: Segment) -> str | None:
    """Who speaks: the name the call gives the segment's speaker, or its track's; None where nobody is known.

    On a call of several tracks the track's own name stands for a speaker that is not known.
    """
    track = next((t for t in call.tracks if t.name == segment.track), None)
    label = segment.speaker or (track.speaker if track else None)
    if label is not None:
        return call.speakers.get(label, label)
    return segment.track if len(call.tracks) > 1 else None
