"""/v1/calls: conversations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection

from callreel.calls import store as calls
from callreel.server.nouns import call_noun, page_noun
from callreel.server.services import Client, House
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.transcripts import store as transcripts

router = APIRouter(prefix="/v1/calls", tags=["calls"])


@router.get("")
async def list_calls(
    house: House,
    client: Client,
    external_id: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """Your calls, newest first; `external_id` is a protocol's own id, such as WhisperLive's uid."""

    def read(conn: Connection) -> dict[str, Any]:
        page = calls.list_calls(conn, client, external_id=external_id, cursor=cursor, limit=limit)
        return page_noun(page, [call_noun(call) for call in page.data])

    return await house.database.read(read)


@router.get("/{call_id}")
async def get(house: House, client: Client, call_id: str) -> dict[str, Any]:
    """One call with its tracks and transcripts."""

    def read(conn: Connection) -> dict[str, Any]:
        call = calls.get_call(conn, call_id, client)
        return call_noun(call, transcripts.of_call(conn, call_id))

    return await house.database.read(read)
