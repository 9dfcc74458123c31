"""All that routes and sockets may call, made once when the server starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, cast
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers

from callreel.accounts import keys
from callreel.errors import Unauthorized
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

    async def client_of(self, key: str | None, *, host: str = "", origin: str = "") -> str:
        """The id of the client that sent `key`, or the local one for a request without a key from this machine.

        `host` and `origin` are the request's headers: a web page elsewhere can make a browser on this machine ask us,
        in its own name or under a name that it made lead here, and must not be taken for its user. Raises Unauthorized.
        """
        if key is not None:
            client = await self.database.read(lambda conn: keys.client_of_key(conn, key))
            if client is not None:
                return client
        elif self.local_client is not None and _is_here(f"//{host}") and _is_here(origin):
            return self.local_client
        raise Unauthorized()


def _is_here(url: str) -> bool:
    """True for an address of this machine, and for none at all."""
    try:
        name = urlsplit(url).hostname
        return url in ("", "//") or name == "localhost" or ip_address(name or "").is_loopback
    except ValueError:
        return False


def bearer(authorization: str | None) -> str | None:
    """The key in an Authorization header."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


async def asking(services: Services, headers: Headers) -> str:
    """The id of the client that sent an HTTP request. Raises Unauthorized."""
    key = bearer(headers.get("authorization"))
    return await services.client_of(key, host=headers.get("host", ""), origin=headers.get("origin", ""))


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


House = Annotated[Services, Depends(_services)]


async def _client(request: Request, house: House) -> str:
    return await asking(house, request.headers)


Client = Annotated[str, Depends(_client)]
