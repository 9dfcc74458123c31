"""All that routes and sockets may call, made once when the server starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from callreel.accounts import keys
from callreel.errors import InvalidInput, Unauthorized
from callreel.live.service import LiveService
from callreel.settings import Settings
from callreel.storage.database import Database
from callreel.storage.events import Events, Subscription
from callreel.storage.folders import DataFolder
from callreel.tasks.runner import Runner


@dataclass(frozen=True, slots=True)
class Services:
    """`local_client` is who asks without a key; None where every request needs one."""

    settings: Settings
    folder: DataFolder
    database: Database
    events: Events
    runner: Runner
    live: LiveService
    local_client: str | None
    engine_warnings: tuple[str, ...]
    watchers: set[Subscription] = field(default_factory=set)  # open event streams, which end when the server stops

    async def client_of(self, key: str | None) -> str:
        """The id of the client that sent `key`. Raises Unauthorized."""
        if key is not None:
            client = await self.database.read(lambda conn: keys.client_of_key(conn, key))
            if client is not None:
                return client
        elif self.local_client is not None:
            return self.local_client
        raise Unauthorized()


def too_large(limit: int) -> InvalidInput:
    """The refusal of an upload of more than `limit` bytes."""
    error = InvalidInput(f"The file is larger than {limit} bytes", hint="Raise CALLREEL_MAX_UPLOAD_BYTES")
    error.status = 413
    return error


def bearer(authorization: str | None) -> str | None:
    """The key in an Authorization header."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


House = Annotated[Services, Depends(_services)]


async def _client(request: Request, house: House) -> str:
    return await house.client_of(bearer(request.headers.get("authorization")))


Client = Annotated[str, Depends(_client)]
