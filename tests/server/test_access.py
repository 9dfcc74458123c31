"""Who asks: keys, the local client, and what becomes of it when the first key is made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from callreel.accounts import keys
from callreel.errors import Unauthorized
from callreel.measure.harness import ServerProcess
from callreel.server.access import Access, Asker
from callreel.storage.database import Database
from tests.server.helpers import caller


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(tmp_path)
    yield database
    database.close()


async def refused(access: Access, key: str | None = None, host: str = "", origin: str = "") -> bool:
    try:
        await access.asker(key, host=host, origin=origin)
    except Unauthorized:
        return True
    return False


def test_without_any_key_this_machine_needs_none_and_others_do(database: Database) -> None:
    local = database.submit(keys.ensure_local_client).result()

    async def run() -> None:
        access = Access(database, local)
        for host in ("", "localhost:8125", "127.0.0.1", "[::1]:8125"):
            assert await access.asker(None, host=host, origin=f"http://{host}" if host else "") == Asker(local, "admin")
        for host, origin in (("rebound.example:8125", ""), ("", "https://elsewhere.example"), ("", "null")):
            assert await refused(access, host=host, origin=origin)
        with pytest.raises(Unauthorized):  # a proxy on this machine asks for somebody who may be anywhere
            await access.asker(None, host="localhost", origin="", forwarded=True)
        assert await refused(access, "cr_wrong")
        assert await refused(Access(database, None))  # a server that listens beyond loopback

    asyncio.run(run())


def test_once_there_is_a_key_everybody_needs_one(database: Database) -> None:
    local = database.submit(keys.ensure_local_client).result()

    async def run() -> None:
        access = Access(database, local)
        assert not await refused(access)
        ann, key = await database.write(lambda conn: keys.create_client(conn, "ann", "user"))
        access.forget()
        assert await refused(access) and await refused(access, "cr_wrong")
        assert await access.asker(key, host="", origin="") == Asker(ann, "user")

    asyncio.run(run())


def test_what_was_looked_up_before_a_change_is_not_remembered_after_it(database: Database) -> None:
    local = database.submit(keys.ensure_local_client).result()

    async def run() -> None:
        access = Access(database, local)
        held = database.submit(lambda conn: keys.create_client(conn, "ann", "user"))
        looking = asyncio.create_task(access.asker(None, host="", origin=""))
        await asyncio.sleep(0)  # it has begun: what it reads may be from before the key
        await asyncio.wrap_future(held)
        access.forget()
        await asyncio.gather(looking, return_exceptions=True)
        assert await refused(access)

    asyncio.run(run())


def test_a_known_key_costs_no_query(database: Database) -> None:
    _, key = database.submit(lambda conn: keys.create_client(conn, "ann", "user")).result()

    async def run() -> None:
        access = Access(database, None)
        first = await access.asker(key, host="", origin="")
        database.close()
        assert await access.asker(key, host="", origin="") == first

    asyncio.run(run())


def test_a_server_with_keys_lets_nobody_in_without_one(guarded: ServerProcess, ann: httpx.Client) -> None:
    with caller(guarded) as nobody:
        assert nobody.get("/v1/jobs").status_code == 401
        assert nobody.get("/health").status_code == 200  # what watches over it needs none
    assert ann.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_who_comes_through_a_proxy_needs_a_key(server: ServerProcess, header: str) -> None:
    with caller(server) as api:
        assert api.get("/v1/jobs").status_code == 200
        for path in ("/v1/jobs", "/v1/keys", "/v1/calls"):
            assert api.get(path, headers={header: "198.51.100.7"}).status_code == 401
        assert api.post("/v1/keys", json={"name": "x", "role": "admin"}, headers={header: "x"}).status_code == 401
        assert api.get("/health", headers={header: "198.51.100.7"}).status_code == 200
