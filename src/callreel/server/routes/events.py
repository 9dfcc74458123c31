"""/v1/calls/{id}/events: what happens in a call right now, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from sqlalchemy import Connection

from callreel import clock
from callreel.calls import store as calls
from callreel.server import sse
from callreel.server.services import Client, House, Services
from callreel.transcripts import store as transcripts
from callreel.transcripts.nouns import segment_noun

router = APIRouter(prefix="/v1/calls", tags=["calls"])


@router.get("/{call_id}/events", response_class=sse.EventStream, status_code=200, responses=sse.DESCRIBED)
async def events(
    house: House,
    client: Client,
    call_id: str,
    last_event_id: Annotated[int | None, Header()] = None,
) -> Response:
    """Server-sent events of one call: what is stored so far, then what happens, each segment under a stable id.

    A segment that somebody edits comes again, with `edited` true.
    """
    await house.database.read(lambda conn: calls.get_call(conn, call_id, client))
    return sse.EventStream(_event_stream(house, call_id, last_event_id))


async def _event_stream(house: Services, call_id: str, after: int | None) -> AsyncGenerator[str]:
    subscription = house.events.subscribe(call_id, after)
    stored: dict[str, _Seen] = {}
    house.watchers.add(subscription)
    try:
        if not subscription.replayed:
            await house.live.stored()  # what was published before we watched, and only waited for the database
            snapshot = await house.database.read(lambda conn: _stored_segments(conn, call_id))
            stored = {data["id"]: _seen(data) for data in snapshot}
            for i, data in enumerate(snapshot, 1):
                # Only the last one has an id: a watcher that is cut off before it gets all of them again.
                position = subscription.position if i == len(snapshot) else None
                yield sse.event("segment", data, at=clock.now(), id=position)
        async for event in subscription:
            if event.type == "segment" and (before := stored.get(event.data["id"])) is not None:
                now = _seen(event.data)
                if now == before or now[0] < before[0]:
                    continue  # it came while the stored ones were read
                del stored[event.data["id"]]  # from now on they come in order
            yield sse.event(event.type, event.data, at=event.at, id=event.id)
    finally:
        house.watchers.discard(subscription)
        subscription.close()


_Seen = tuple[tuple[int, int], str, str | None]


def _seen(segment: dict[str, Any]) -> _Seen:
    """The version of a segment, and what an edit may change of it without another version."""
    return (segment["epoch"], segment["revision"]), segment["text"], segment["speaker"]


def _stored_segments(conn: Connection, call_id: str) -> list[dict[str, Any]]:
    current = transcripts.current_transcript(conn, call_id)
    found = transcripts.segments(conn, current.id) if current else []
    return [segment_noun(current.id, segment) for segment in found] if current else []
