"""/v1/calls: conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from callreel import clock
from callreel.calls import store as calls
from callreel.calls.changes import update_call
from callreel.errors import InvalidInput
from callreel.server.nouns import call_noun, json_page
from callreel.server.services import Client, House
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.tasks.cleaner import delete_call
from callreel.transcripts import store as transcripts

router = APIRouter(prefix="/v1/calls", tags=["calls"])

TOLD = ("id", "state", "title", "labels", "speakers")  # to watchers, of a call that was changed


class CallChange(BaseModel):
    """What of a call may change; what is not given stays."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field("", description="What it is called")
    external_id: str | None = Field(None, description="Its id in another system; null takes it away")
    labels: dict[str, str | None] = Field({}, description="Of these only; null takes a label away")
    speakers: dict[str, str | None] = Field({}, description="Names by the labels that segments carry; null: no name")


@router.get("")
async def list_calls(
    house: House,
    client: Client,
    external_id: Annotated[str | None, Query(description="Its id in another system, such as WhisperLive's uid")] = None,
    state: Literal["live", "processing", "done", "failed"] | None = None,
    since: Annotated[datetime | None, Query(alias="from", description="Made then or later, RFC 3339")] = None,
    until: Annotated[datetime | None, Query(alias="to", description="Made before then, RFC 3339")] = None,
    label: Annotated[list[str] | None, Query(description="NAME=VALUE; of several, all")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> Response:
    """Your calls, newest first."""
    labels = dict(_label(pair) for pair in label or ())
    made_since, made_before = _stamp(since, "from"), _stamp(until, "to")

    def read(conn: Connection) -> Response:
        page = calls.list_calls(
            conn,
            client,
            external_id=external_id,
            state=state,
            labels=labels,
            since=made_since,
            until=made_before,
            cursor=cursor,
            limit=limit,
        )
        return json_page(page, [call_noun(call) for call in page.data])

    return await house.database.read(read)


@router.get("/{call_id}")
async def get(house: House, client: Client, call_id: str) -> dict[str, Any]:
    """One call with its tracks and transcripts."""
    return await house.database.read(lambda conn: _whole(conn, calls.get_call(conn, call_id, client)))


@router.patch("/{call_id}")
async def change(house: House, client: Client, call_id: str, asked: CallChange) -> dict[str, Any]:
    """Change title, external_id, labels, or what speakers are called; transcripts show the new names at once."""
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    noun = await house.database.write(lambda conn: _whole(conn, update_call(conn, call_id, client, **given)))
    house.events.publish(call_id, "call", {name: noun[name] for name in TOLD})
    return noun


@router.delete("/{call_id}", status_code=204)
async def remove(house: House, client: Client, call_id: str) -> None:
    """Delete a call and everything under it: recording, transcripts, edits, jobs, which are cancelled first.

    A live call is a conflict: end its stream first.
    """
    await delete_call(house.runner, call_id, client)


def _whole(conn: Connection, call: calls.Call) -> dict[str, Any]:
    return call_noun(call, transcripts.of_call(conn, call.id))


def _label(pair: str) -> tuple[str, str]:
    name, sign, value = pair.partition("=")
    if not (name and sign):
        raise InvalidInput(f"{pair!r} is no label", hint="Write label=NAME=VALUE", field="label")
    return name, value


def _stamp(at: datetime | None, field: str) -> str | None:
    """As the store keeps times."""
    try:
        return None if at is None else clock.stamp(at)
    except OverflowError:
        raise InvalidInput("There is no such time", field=field) from None
