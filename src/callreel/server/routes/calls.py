"""/v1/calls: conversations, their transcripts, and what happens in them right now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from callreel import clock
from callreel.calls import store as calls
from callreel.errors import NotFound
from callreel.server.nouns import call_noun, page_noun
from callreel.server.services import Client, House, Services
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.text import Segment
from callreel.transcripts import store as transcripts
from callreel.transcripts.formats import format_named
from callreel.transcripts.nouns import segment_noun

router = APIRouter(prefix="/v1/calls", tags=["calls"])
NOTHING = (0, 0)  # below every version of a segment


@router.get("")
async def list_calls(
    house: House,
    client: Client,
    external_id: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """Your calls, newest first; `external_id` is a protocol's own id, such as WhisperLive's uid."""
    page = await house.database.read(
        lambda conn: calls.list_calls(conn, client, external_id=external_id, cursor=cursor, limit=limit)
    )
    return page_noun(page, [call_noun(call) for call in page.data])


@router.get("/{call_id}")
async def get(house: House, client: Client, call_id: str) -> dict[str, Any]:
    """One call with its tracks and transcripts."""

    def read(conn: Connection) -> dict[str, Any]:
        call = calls.get_call(conn, call_id, client)
        return call_noun(call, transcripts.of_call(conn, call_id))

    return await house.database.read(read)


@router.get("/{call_id}/transcript")
async def transcript(house: House, client: Client, call_id: str, format: str = "json") -> Response:
    """The best transcript there is: the final one, or the live one until then."""
    chosen = format_named(format)

    def read(conn: Connection) -> tuple[calls.Call, transcripts.Transcript, list[Segment]]:
        call = calls.get_call(conn, call_id, client)
        current = transcripts.current_transcript(conn, call_id)
        if current is None:
            raise NotFound("This call has no transcript yet", hint=f"Its state is {call.state}; see its job")
        return call, current, transcripts.segments(conn, current.id)

    call, current, segments = await house.database.read(read)
    body = await asyncio.to_thread(chosen.render, call, current, segments)  # a long call's subtitles take a second
    return Response(body, media_type=chosen.media_type)


@router.get("/{call_id}/events")
async def events(
    house: House,
    client: Client,
    call_id: str,
    last_event_id: Annotated[int | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events of one call: what is stored so far, then what happens, each segment under a stable id."""
    await house.database.read(lambda conn: calls.get_call(conn, call_id, client))
    return StreamingResponse(
        _event_stream(house, call_id, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def _event_stream(house: Services, call_id: str, after: int | None) -> AsyncIterator[str]:
    subscription = house.events.subscribe(call_id, after)
    stored: dict[str, tuple[int, int]] = {}
    house.watchers.add(subscription)
    try:
        if not subscription.replayed:
            await house.live.stored()  # what was published before we watched, and only waited for the database
            snapshot = await house.database.read(lambda conn: _stored_segments(conn, call_id))
            stored = {data["id"]: _version(data) for data in snapshot}
            for i, data in enumerate(snapshot, 1):
                # Only the last one has an id: a watcher that is cut off before it gets all of them again.
                yield _sse(subscription.position if i == len(snapshot) else None, "segment", clock.now(), data)
        async for event in subscription:
            if event.type == "segment" and _version(event.data) <= stored.get(event.data["id"], NOTHING):
                continue  # it came while the stored ones were read
            yield _sse(event.id, event.type, event.at, event.data)
    finally:
        house.watchers.discard(subscription)
        subscription.close()


def _version(segment: dict[str, Any]) -> tuple[int, int]:
    return segment["epoch"], segment["revision"]


def _stored_segments(conn: Connection, call_id: str) -> list[dict[str, Any]]:
    current = transcripts.current_transcript(conn, call_id)
    found = transcripts.segments(conn, current.id) if current else []
    return [segment_noun(current.id, segment) for segment in found] if current else []


def _sse(event_id: int | None, type: str, at: str, data: dict[str, Any]) -> str:
    body = json.dumps({"type": type, "id": event_id, "at": at, "data": data}, ensure_ascii=False)
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {type}\ndata: {body}\n\n"
