from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from callreel.storage import events
from callreel.storage.events import QUEUE_EVENTS, RING_EVENTS, Event, EventHub, Events, Subscription


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


async def take(subscription: Subscription, n: int) -> list[Event]:
    return [await anext(subscription) for _ in range(n)]


def test_the_hub_is_an_events() -> None:
    hub: Events = EventHub()
    event = hub.publish("call", "segment", {"text": "hello"})
    assert (event.type, event.call_id, event.data) == ("segment", "call", {"text": "hello"})
    assert event.at.endswith("Z")


def test_a_watcher_gets_the_events_of_its_call_in_order() -> None:
    async def scenario() -> None:
        hub = EventHub()
        subscription = hub.subscribe("call", None)
        assert not subscription.replayed
        published = [hub.publish("call", "segment", {"n": n}) for n in range(3)]
        hub.publish("another call", "segment", {})
        assert await take(subscription, 3) == published
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        assert not waiting.done()
        last = hub.publish("call", "call", {})
        assert await waiting == last

    run(scenario)


def test_ids_rise_from_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    wall_ms = iter([1_000, 1_000, 1_000, 5_000, 4_000])
    monkeypatch.setattr(events, "_wall_clock_ms", lambda: next(wall_ms))
    hub = EventHub()
    assert [hub.publish("call", "call", {}).id for _ in range(4)] == [1_001, 1_002, 5_000, 5_001]


def test_a_watcher_that_returns_gets_what_it_missed() -> None:
    async def scenario() -> None:
        hub = EventHub()
        first, *missed = [hub.publish("call", "segment", {"n": n}) for n in range(4)]
        subscription = hub.subscribe("call", first.id)
        live = hub.publish("call", "call", {})
        assert subscription.replayed
        assert await take(subscription, 4) == [*missed, live]
        assert hub.subscribe("call", live.id).replayed

    run(scenario)


def test_a_snapshot_has_a_position_to_return_to() -> None:
    async def scenario() -> None:
        hub = EventHub()
        position = hub.subscribe("call", None).position
        event = hub.publish("call", "segment", {})
        back = hub.subscribe("call", position)
        assert back.replayed
        assert await take(back, 1) == [event]

    run(scenario)


def test_what_left_the_ring_is_not_replayed() -> None:
    hub = EventHub()
    published = [hub.publish("call", "segment", {}) for _ in range(RING_EVENTS + 2)]
    assert not hub.subscribe("call", published[0].id).replayed
    assert hub.subscribe("call", published[1].id).replayed
    assert not hub.subscribe("call", published[-1].id + 10**6).replayed


def test_the_events_of_an_earlier_run_are_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    wall_ms = 1_000
    monkeypatch.setattr(events, "_wall_clock_ms", lambda: wall_ms)
    last = EventHub().publish("call", "segment", {})
    wall_ms = 3_000
    hub = EventHub()
    assert not hub.subscribe("call", last.id).replayed
    assert hub.publish("call", "segment", {}).id > last.id


def test_a_slow_watcher_lags_and_harms_nobody() -> None:
    async def scenario() -> None:
        hub = EventHub()
        slow, quick = hub.subscribe("call", None), hub.subscribe("call", None)
        for n in range(QUEUE_EVENTS + 100):
            hub.publish("call", "segment", {"n": n})
            assert (await anext(quick)).data == {"n": n}
        assert slow.lagged
        assert not quick.lagged
        assert len([event async for event in slow]) == QUEUE_EVENTS

    run(scenario)


def test_what_is_replayed_takes_no_room_from_what_comes() -> None:
    hub = EventHub()
    first = hub.publish("call", "segment", {})
    for _ in range(RING_EVENTS - 1):
        hub.publish("call", "segment", {})
    subscription = hub.subscribe("call", first.id)
    for _ in range(QUEUE_EVENTS):
        hub.publish("call", "segment", {})
    assert not subscription.lagged
    hub.publish("call", "segment", {})
    assert subscription.lagged


def test_close_ends_a_waiting_iteration() -> None:
    async def scenario() -> None:
        hub = EventHub()
        subscription = hub.subscribe("call", None)
        waiting = asyncio.ensure_future(anext(subscription, None))
        await asyncio.sleep(0)
        subscription.close()
        subscription.close()
        assert await waiting is None
        hub.publish("call", "segment", {})
        assert [event async for event in subscription] == []

    run(scenario)


def test_idle_calls_are_forgotten_and_watched_ones_are_not() -> None:
    hub = EventHub(idle_s=0)
    watched = hub.subscribe("watched", None)
    hub.publish("idle", "segment", {})
    hub.publish("watched", "segment", {})
    assert set(hub._feeds) == {"watched"}
    watched.close()
    hub.publish("another", "segment", {})
    assert set(hub._feeds) == {"another"}
