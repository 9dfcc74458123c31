"""All that routes and sockets may call, made once when the server starts."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.datastructures import Headers

from callreel.accounts.keys import KEY_PREFIX
from callreel.errors import Forbidden
from callreel.live.service import LiveService
from callreel.server.access import Access, Asker
from callreel.server.answers import is_openai
from callreel.server.machine import Machine
from callreel.server.speech import Speech
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
    speech: Speech
    local_client: str | None
    engine_warnings: tuple[str, ...]
    watchers: set[Subscription] = field(default_factory=set)  # open event streams, which end when the server stops

    access: Access = field(init=False)
    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "machine", Machine(self.folder))
        object.__setattr__(self, "access", Access(self.database, self.local_client))

    async def client_of(self, key: str | None, *, host: str = "", origin: str = "", forwarded: bool = False) -> str:
        """The id of the client that asks, as `Access.asker` tells it. Raises Unauthorized."""
        return (await self.access.asker(key, host=host, origin=origin, forwarded=forwarded)).id


def is_forwarded(headers: Container[str]) -> bool:
    """Whether a proxy asks, for somebody who may be anywhere."""
    return any(name in headers for name in ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"))


def bearer(authorization: str | None) -> str | None:
    """The key in an Authorization header."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


async def asking(services: Services, headers: Headers, path: str) -> Asker:
    """The client that sent an HTTP request. Raises Unauthorized.

    OpenAI's clients cannot do without a key: at their paths one that is none of ours counts as none at all.
    """
    key = bearer(headers.get("authorization"))
    if key is not None and is_openai(path) and not key.startswith(KEY_PREFIX):
        key = None
    return await services.access.asker(
        key, host=headers.get("host", ""), origin=headers.get("origin", ""), forwarded=is_forwarded(headers)
    )


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


House = Annotated[Services, Depends(_services)]


async def _client(request: Request, house: House) -> str:
    return (await asking(house, request.headers, request.url.path)).id


async def _admin(request: Request, house: House) -> str:
    asker = await asking(house, request.headers, request.url.path)
    if asker.role != "admin":
        raise Forbidden()
    return asker.id


Client = Annotated[str, Depends(_client)]
Admin = Annotated[str, Depends(_admin)]
