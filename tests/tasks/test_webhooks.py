"""The courier with a real database and real receivers."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from callreel.accounts.keys import create_client
from callreel.jobs import webhooks
from callreel.jobs.webhooks import Delivery, Webhook
from callreel.storage.database import Database
from callreel.tasks import webhooks as courier
from callreel.tasks.webhooks import Courier
from tests.net.sites import HERE, Exchange, site
from tests.storage.fixtures import database

__all__ = ["database"]
DEADLINE_S = 60.0
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "IDLE_S", 0.02)
    monkeypatch.setattr(courier, "STOP_S", 0.05)
    monkeypatch.setattr(webhooks, "RETRY_FIRST_S", 0.02)


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


class Owner:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.id = database.submit(lambda conn: create_client(conn, "owner", "user")[0]).result()

    def hook(self, url: str) -> Webhook:
        return self.database.submit(
            lambda conn: webhooks.create(conn, client_id=self.id, url=url, events=["job"])
        ).result()

    def tell(self, **data: Any) -> None:
        self.database.submit(lambda conn: webhooks.tell(conn, self.id, "job", data)).result()

    async def deliveries(self, hook: Webhook) -> list[Delivery]:
        page = await self.database.read(lambda conn: webhooks.deliveries(conn, hook.id, self.id))
        return page.data[::-1]

    async def until(self, hook: Webhook, holds: Callable[[list[Delivery]], bool]) -> list[Delivery]:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if holds(found := await self.deliveries(hook)):
                    return found
                await asyncio.sleep(0.01)

    async def ended(self, hook: Webhook) -> list[Delivery]:
        return await self.until(hook, lambda all_: all(d.ended_at for d in all_))


@pytest.fixture
def owner(database: Database) -> Owner:
    return Owner(database)


@asynccontextmanager
async def running(database: Database, allow: tuple[str, ...] = HERE) -> AsyncIterator[Courier]:
    under_way = Courier(database, allow_networks=allow)
    under_way.start()
    try:
        yield under_way
    finally:
        await under_way.stop()


def events(seen: list[Exchange]) -> list[Any]:
    return [json.loads(e.body)["data"]["i"] for e in seen]


@in_a_loop
async def test_what_is_told_arrives_in_order_and_signed(database: Database, owner: Owner) -> None:
    with site(lambda e: e.answer(202)) as there:
        hook = owner.hook(there.url("/hook"))
        for i in range(3):
            owner.tell(i=i)
        async with running(database):
            ended = await owner.ended(hook)
    assert events(there.seen) == [0, 1, 2]
    assert [(d.state, d.attempts, d.status, d.error) for d in ended] == [("delivered", 1, 202, None)] * 3
    first = there.seen[0]
    assert json.loads(first.body) == ended[0].payload
    assert (first.path, first.headers["Content-Type"]) == ("/hook", "application/json")
    assert (first.headers["Callreel-Event"], first.headers["Callreel-Delivery"]) == ("job", ended[0].id)

    documented: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", (DOCS / "webhooks.md").read_text(), re.DOTALL)[0], documented)
    is_ours = documented["is_from_callreel"]
    assert is_ours(hook.secret, dict(first.headers), first.body)
    assert not is_ours(hook.secret, dict(first.headers), first.body + b" ")
    assert not is_ours("another", dict(first.headers), first.body)


@in_a_loop
async def test_a_receiver_that_fails_gets_it_again(database: Database, owner: Owner) -> None:
    def answering(e: Exchange) -> None:
        e.answer(500, b"not now") if len(there.seen) < 3 else e.answer()

    with site(answering) as there:
        hook = owner.hook(there.url())
        owner.tell(i=0)
        async with running(database):
            (told,) = await owner.ended(hook)
    assert (told.state, told.attempts, told.status) == ("delivered", 3, 200)
    assert {e.headers["Callreel-Delivery"] for e in there.seen} == {told.id}


@in_a_loop
async def test_three_failures_end_it_and_say_why(database: Database, owner: Owner) -> None:
    with site(lambda e: e.answer(500, b"never")) as there:
        refusing = owner.hook(there.url())
        owner.tell(i=0)
        async with running(database):
            (told,) = await owner.ended(refusing)
    assert len(there.seen) == 3
    assert (told.state, told.status, told.error) == ("failed", 500, "answered 500: never")


@in_a_loop
async def test_an_address_that_is_not_allowed_is_not_tried_again(database: Database, owner: Owner) -> None:
    with site(lambda e: e.answer()) as there:
        hook = owner.hook(there.url())
        owner.tell(i=0)
        async with running(database, allow=()):
            (told,) = await owner.ended(hook)
    assert there.seen == []
    assert (told.state, told.attempts, told.status) == ("failed", 1, None)
    assert "private" in (told.error or "")


@in_a_loop
async def test_nobody_there_is_tried_again(database: Database, owner: Owner) -> None:
    with site(lambda e: e.answer()) as there:
        pass
    hook = owner.hook(there.url())
    owner.tell(i=0)
    async with running(database):
        (told,) = await owner.ended(hook)
    assert (told.state, told.attempts) == ("failed", 3)
    assert "cannot be reached" in (told.error or "")


@in_a_loop
async def test_a_slow_receiver_holds_up_nobody_else(database: Database, owner: Owner) -> None:
    released = threading.Event()

    def slow(e: Exchange) -> None:
        released.wait(DEADLINE_S)
        e.answer()

    with site(slow) as slow_site, site(lambda e: e.answer()) as quick_site:
        slow_hook, quick_hook = owner.hook(slow_site.url()), owner.hook(quick_site.url())
        for i in range(5):
            owner.tell(i=i)
        async with running(database):
            await owner.ended(quick_hook)
            assert events(quick_site.seen) == list(range(5))
            assert len(slow_site.seen) == 1  # one at a time
            released.set()
            await owner.ended(slow_hook)
        assert events(slow_site.seen) == list(range(5))


@in_a_loop
async def test_what_is_under_way_at_the_stop_is_sent_by_the_next(database: Database, owner: Owner) -> None:
    reached = threading.Event()

    def answering(e: Exchange) -> None:
        if len(there.seen) == 1:
            reached.set()
            e.wait_until_hung_up()
        else:
            e.answer()

    with site(answering) as there:
        hook = owner.hook(there.url())
        owner.tell(i=0)
        async with running(database):
            assert await asyncio.to_thread(reached.wait, DEADLINE_S)
        (told,) = await owner.deliveries(hook)
        assert (told.state, told.attempts) == ("pending", 0)
        async with running(database):
            (told,) = await owner.ended(hook)
        assert (told.state, told.attempts) == ("delivered", 1)
