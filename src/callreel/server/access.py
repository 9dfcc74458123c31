"""Who asks: a key's client, or, from this machine and while nobody has a key, the local one."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from sqlalchemy import Connection

from callreel.accounts import keys
from callreel.errors import Unauthorized
from callreel.storage.database import Database

KNOWN_KEYS = 1024  # remembered at once


@dataclass(frozen=True, slots=True)
class Asker:
    """A client, for as long as one request."""

    id: str
    role: str


@dataclass(slots=True)
class _Memory:
    """What was looked up since keys last changed; `open`: may a request do without one?"""

    known: dict[str, Asker] = field(default_factory=dict)  # by the hash of the key
    open: bool | None = None


class Access:
    """Remembers whose keys are whose, so that asking costs no query; `forget` when a key was made or taken back.

    Only the process that holds the data folder changes keys, so nothing else can make what it remembers untrue.
    """

    def __init__(self, database: Database, local_client: str | None) -> None:
        self._database, self._local_client = database, local_client
        self._memory = _Memory()

    async def asker(self, key: str | None, *, host: str, origin: str, forwarded: bool = False) -> Asker:
        """Who sent `key`, or nothing in its place.

        `host` and `origin` are the request's headers: a web page elsewhere can make a browser on this machine ask us,
        in its own name or under a name that it made lead here, and must not be taken for its user. Nor must whoever is
        behind a proxy on this machine, by which the request was `forwarded`. Raises Unauthorized.
        """
        if key is not None:
            return await self._holder(key)
        near = self._local_client is not None and not forwarded
        if near and _is_here(f"//{host}") and _is_here(origin) and await self._is_open():
            assert self._local_client is not None
            return Asker(self._local_client, "admin")
        raise Unauthorized()

    def forget(self) -> None:
        """What is being looked up right now is forgotten too: it goes into the memory that was."""
        self._memory = _Memory()

    async def _holder(self, key: str) -> Asker:
        memory, hashed = self._memory, keys.key_hash(key)
        if (asker := memory.known.get(hashed)) is not None:
            return asker
        if (found := await self._database.read(lambda conn: _asker(conn, key))) is None:
            raise Unauthorized()
        if len(memory.known) >= KNOWN_KEYS:
            memory.known.clear()
        memory.known[hashed] = found
        return found

    async def _is_open(self) -> bool:
        memory = self._memory
        if memory.open is None:
            memory.open = not await self._database.read(keys.any_key)
        return memory.open


def _asker(conn: Connection, key: str) -> Asker | None:
    client_id = keys.client_of_key(conn, key)
    return None if client_id is None else Asker(client_id, keys.role_of(conn, client_id))


def _is_here(url: str) -> bool:
    """True for an address of this machine, and for none at all."""
    try:
        name = urlsplit(url).hostname
        return url in ("", "//") or name == "localhost" or ip_address(name or "").is_loopback
    except ValueError:
        return False
