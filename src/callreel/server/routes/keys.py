"""/v1/keys: who may ask. All of it is for admins."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from callreel.accounts import keys
from callreel.errors import InvalidInput
from callreel.server.nouns import page_noun
from callreel.server.services import Admin, House
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT

router = APIRouter(prefix="/v1/keys", tags=["keys"])


class KeyRequest(BaseModel):
    """Who gets the key."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, description="Of the client, another one's than all there are")
    role: Literal["admin", "user"] = Field("user", description="An admin may make keys and take them back")


@router.post("", status_code=201)
async def create(house: House, admin: Admin, asked: KeyRequest) -> dict[str, Any]:
    """Make a client and its `key`, which is in this answer and never shown again.

    From the first key on, requests from this machine need one too; so the first one has to be an admin's.
    """

    def write(conn: Connection) -> dict[str, Any]:
        if asked.role != "admin" and not keys.any_key(conn):
            raise InvalidInput(
                "The first key has to be an admin's", hint="Nobody could make another otherwise", field="role"
            )
        client_id, key = keys.create_client(conn, asked.name, asked.role)
        return _noun(keys.get_client(conn, client_id)) | {"key": key}

    return await _changed(house, write)


@router.get("")
async def list_keys(
    house: House,
    admin: Admin,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """All clients, newest first; those that are not `active` have lost their key."""
    page = await house.database.read(lambda conn: keys.list_clients(conn, cursor, limit))
    return page_noun(page, [_noun(client) for client in page.data])


@router.post("/{client_id}/rotate")
async def rotate(house: House, admin: Admin, client_id: str) -> dict[str, Any]:
    """Give a client a new `key`, shown once; its old one is good for nothing from now on."""

    def write(conn: Connection) -> dict[str, Any]:
        key = keys.rotate(conn, client_id)
        return _noun(keys.get_client(conn, client_id)) | {"key": key}

    return await _changed(house, write)


@router.delete("/{client_id}")
async def revoke(house: House, admin: Admin, client_id: str) -> dict[str, Any]:
    """Take a client's key back; its calls stay. Without any key left, this machine needs none again."""
    return await _changed(house, lambda conn: _noun(keys.revoke(conn, client_id)))


async def _changed(house: House, write: Any) -> dict[str, Any]:
    try:
        noun: dict[str, Any] = await house.database.write(write)
    finally:
        house.access.forget()  # whatever became of it
    return noun


def _noun(client: keys.Client) -> dict[str, Any]:
    noun: dict[str, Any] = msgspec.to_builtins(client)
    return noun
