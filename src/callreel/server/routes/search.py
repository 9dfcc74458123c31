"""/v1/search: the moment at which something was said."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from callreel.server.nouns import json_page
from callreel.server.services import Client, House
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.transcripts.search import MOST_QUERY, search

router = APIRouter(prefix="/v1/search", tags=["search"])


@router.get("")
async def find(
    house: House,
    client: Client,
    q: Annotated[
        str, Query(max_length=MOST_QUERY, description='Words, "phrases" and beginnings* that must all be there')
    ],
    call_id: Annotated[str | None, Query(description="In this call only")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> Response:
    """Moments of your calls at which this was said, edits included: newest calls first, each call in order of time.

    `start` is the second of the first word that was found, `snippet` the text around it, `matches` where in it.
    """

    def read(conn: Connection) -> Response:
        page = search(conn, client, q, cursor=cursor, limit=limit, call_id=call_id)
        return json_page(page, [msgspec.to_builtins(moment) for moment in page.data])

    return await house.database.read(read)
