"""What changed, told to whoever watches a call: in this process, from one asyncio loop.

An event carries an id, so that a watcher that lost its connection says where it stopped and gets what it missed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from callreel import clock

RING_EVENTS = 1000  # kept a call, for watchers that come back
QUEUE_EVENTS = 1024  # unread by one watcher before it counts as lagged
IDLE_S = 600.0  # a call is forgotten after this long without an event and without a watcher


@dataclass(frozen=True, slots=True)
class Event:
    """One change; ids rise within a call, over restarts too. `at` is RFC 3339."""

    id: int
    type: str
    call_id: str
    at: str
    data: dict[str, Any]


class Events(Protocol):
    """Where events go through, whatever carries them."""

    def publish(self, call_id: str, type: str, data: dict[str, Any]) -> Event: ...

    def subscribe(self, call_id: str, after: int | None) -> Subscription: ...


class Subscription:
    """One watcher of one call: iterate for its events, `close()` when done.

    `replayed`: what came after the watcher's last event comes first. If False, send a snapshot instead, under the id
    `position`: every later event has a higher one. `lagged`: the watcher was too slow; the iteration ends after what
    was already queued, and the watcher subscribes again.
    """

    def __init__(self, feed: _Feed, missed: Iterable[Event], *, replayed: bool) -> None:
        self.replayed = replayed
        self.position = feed.last_id
        self.lagged = False
        self._feed = feed
        self._unread = deque(missed)
        self._room = len(self._unread) + QUEUE_EVENTS  # len(_unread) never exceeds it
        self._ended = False
        self._changed = asyncio.Event()
        feed.watchers.add(self)

    def close(self) -> None:
        """End the iteration at once; closing twice is harmless."""
        self._unread.clear()
        self._end()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._unread:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._unread.popleft()

    def offer(self, event: Event) -> None:
        """Queue `event` without ever waiting; too much unread ends the subscription."""
        if len(self._unread) < self._room:
            self._unread.append(event)
            self._changed.set()
        else:
            self.lagged = True
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._changed.set()
        self._feed.watchers.discard(self)
        self._feed.used_at = clock.monotonic()


@dataclass(slots=True, eq=False)
class _Feed:
    """The latest events of one call. Every event after `forgotten_id` up to `last_id` is in `ring`."""

    forgotten_id: int
    last_id: int
    ring: deque[Event] = field(default_factory=deque)
    watchers: set[Subscription] = field(default_factory=set)
    used_at: float = field(default_factory=clock.monotonic)


class EventHub:
    """Events inside one process. A publisher never waits; memory is bounded a call and a watcher."""

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._feeds: dict[str, _Feed] = {}
        self._swept_at = clock.monotonic()

    def publish(self, call_id: str, type: str, data: dict[str, Any]) -> Event:
        """Tell every watcher of the call, and keep the event for those that come back."""
        feed = self._feed(call_id)
        event = Event(max(feed.last_id + 1, _wall_clock_ms()), type, call_id, clock.now(), data)
        feed.last_id = event.id
        feed.ring.append(event)
        if len(feed.ring) > RING_EVENTS:
            feed.forgotten_id = feed.ring.popleft().id
        for watcher in tuple(feed.watchers):  # a watcher that lags leaves the set
            watcher.offer(event)
        return event

    def subscribe(self, call_id: str, after: int | None) -> Subscription:
        """Watch a call from now on, and from the event `after` on if all that followed it is still known."""
        feed = self._feed(call_id)
        if after is None or not feed.forgotten_id <= after <= feed.last_id:
            return Subscription(feed, (), replayed=False)
        return Subscription(feed, (event for event in feed.ring if event.id > after), replayed=True)

    def _feed(self, call_id: str) -> _Feed:
        self._forget_idle()
        feed = self._feeds.get(call_id)
        if feed is None:
            # Ids start at the wall clock: above all that a feed of this call, forgotten or of another run, gave out.
            born = _wall_clock_ms()
            feed = self._feeds[call_id] = _Feed(forgotten_id=born, last_id=born)
        feed.used_at = clock.monotonic()
        return feed

    def _forget_idle(self) -> None:
        now = clock.monotonic()
        if now - self._swept_at >= self._idle_s / 10:  # rarely enough to cost nothing an event
            self._swept_at = now
            live = {id: feed for id, feed in self._feeds.items() if feed.watchers or now - feed.used_at < self._idle_s}
            self._feeds = live


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
