"""/v1/calls/{id}/segments/{id}: one stretch of a transcript, and what people make of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from msgspec import UNSET
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from callreel.calls import store as calls
from callreel.errors import InvalidInput, NotFound
from callreel.server.services import Client, House
from callreel.transcripts import edits
from callreel.transcripts import store as transcripts
from callreel.transcripts.nouns import segment_key, segment_noun

router = APIRouter(prefix="/v1/calls", tags=["transcripts"])


class SegmentChange(BaseModel):
    """What of a segment may be edited; what is not given stays."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field("", max_length=edits.MOST_TEXT, description="What was said")
    speaker: str | None = Field(
        None, max_length=edits.MOST_LABEL, description="Label of who said it; the call maps labels to names"
    )


@router.get("/{call_id}/segments/{segment_id:path}")
async def get(
    house: House,
    client: Client,
    call_id: str,
    segment_id: str,
    edited: Annotated[bool, Query(description="false: as the engine wrote it")] = True,
) -> dict[str, Any]:
    """One segment, with what was edited in it."""

    def read(conn: Connection) -> dict[str, Any]:
        transcript_id, track, seq = _of_call(conn, client, call_id, segment_id)
        return segment_noun(transcript_id, transcripts.one_segment(conn, transcript_id, track, seq, edited=edited))

    return await house.database.read(read)


@router.patch("/{call_id}/segments/{segment_id:path}")
async def change(house: House, client: Client, call_id: str, segment_id: str, asked: SegmentChange) -> dict[str, Any]:
    """Edit the text or the speaker of a segment. Its times stay, and so does what the engine wrote; watchers of the
    call are told."""
    given = asked.model_fields_set
    if not given:
        raise InvalidInput("There is nothing to change", hint="Give text, speaker or both")

    def write(conn: Connection) -> dict[str, Any]:
        transcript_id, _, _ = _of_call(conn, client, call_id, segment_id)
        changed = edits.change(
            conn,
            segment_id,
            client,
            text=asked.text if "text" in given else UNSET,
            speaker=asked.speaker if "speaker" in given else UNSET,
        )
        return segment_noun(transcript_id, changed)

    noun = await house.database.write(write)
    house.events.publish(call_id, "segment", noun)
    return noun


@router.delete("/{call_id}/segments/{segment_id:path}")
async def revert(house: House, client: Client, call_id: str, segment_id: str) -> dict[str, Any]:
    """Take the edits of a segment back: the answer is what the engine wrote. The segment itself stays."""

    def write(conn: Connection) -> dict[str, Any]:
        transcript_id, _, _ = _of_call(conn, client, call_id, segment_id)
        return segment_noun(transcript_id, edits.revert(conn, segment_id, client))

    noun = await house.database.write(write)
    house.events.publish(call_id, "segment", noun)
    return noun


def _of_call(conn: Connection, client: str, call_id: str, segment_id: str) -> tuple[str, str, int]:
    """The key of a segment. Raises NotFound if it is of another call, or the call of another client."""
    calls.get_call(conn, call_id, client)
    key = segment_key(segment_id)
    if key[0] not in {transcript.id for transcript in transcripts.of_call(conn, call_id)}:
        raise NotFound(call_id=call_id, segment_id=segment_id)
    return key
