"""Webhooks and what is delivered to them, in SQL. Every function is one step inside the caller's transaction.

A delivery is written together with what it tells of, so that none is lost and none tells of what was rolled back. It is
pending, and sending while it is claimed, until its receiver took it (delivered) or it was tried MAX_ATTEMPTS times
(failed). `attempts` counts the claims and is the fence. A claim is a lease: a delivery whose sender was lost is sent
again when that is over, so a receiver may get one twice, under one id. `now` and `next_at` are seconds since the epoch.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy import insert as insert_into

from callreel import clock
from callreel.errors import InvalidInput, NotFound
from callreel.storage.pages import DEFAULT_LIMIT, Page, newest_first
from callreel.storage.tables import delivery, webhook

State = Literal["active", "paused"]
EVENTS = ("job",)  # types of events that can be asked for
MOST = 20  # webhooks of a client: each event is written once for every one
MAX_ATTEMPTS = 3
RETRY_FIRST_S = 2.0
LOST = "the sender was lost in the middle of it"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a client wants to be told of events of some types; a paused one gets what is due once it is active again.

    `secret` signs what is delivered; its owner is shown it once.
    """

    id: str
    client_id: str
    url: str
    events: list[str]
    secret: str
    state: State
    created_at: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook; `status` is the last answer's, None when nobody answered, `error` says why it failed.

    `payload` is the event {type, id, at, data}, whose id is the delivery's.
    """

    id: str
    webhook_id: str
    event: str
    payload: dict[str, Any]
    state: Literal["pending", "sending", "delivered", "failed"]
    attempts: int
    status: int | None
    error: str | None
    next_at: float
    created_at: str
    ended_at: str | None


def create(conn: Connection, *, client_id: str, url: str, events: Collection[str]) -> Webhook:
    """A new active webhook with a secret of its own; `url` is the caller's to check.

    Raises InvalidInput for events that there are none of, and above MOST webhooks.
    """
    if not events or not set(events) <= set(EVENTS):
        raise InvalidInput(f"events must be some of {', '.join(EVENTS)}.", field="events")
    owned = select(func.count()).select_from(webhook).where(webhook.c.client_id == client_id)
    if conn.execute(owned).scalar_one() >= MOST:
        raise InvalidInput(f"A client has at most {MOST} webhooks.", hint="Delete one that is not needed any more")
    row = {
        "client_id": client_id,
        "url": url,
        "events": sorted(set(events)),
        "secret": f"whsec_{secrets.token_urlsafe(32)}",
    }
    return Webhook(**conn.execute(insert_into(webhook).values(row).returning(webhook)).mappings().one())


def get(conn: Connection, webhook_id: str, client_id: str) -> Webhook:
    """One webhook. Raises NotFound, for another client's too."""
    row = conn.execute(select(webhook).where(*_owned(webhook_id, client_id))).mappings().one_or_none()
    if row is None:
        raise NotFound(webhook_id=webhook_id)
    return Webhook(**row)


def list_page(conn: Connection, client_id: str, cursor: str | None = None, limit: int = DEFAULT_LIMIT) -> Page[Webhook]:
    """A client's webhooks, newest first. Raises as `pages.newest_first` does."""
    page = newest_first(conn, webhook, webhook.c.client_id == client_id, cursor=cursor, limit=limit)
    return Page([Webhook(**row) for row in page.data], page.next)


def set_state(conn: Connection, webhook_id: str, client_id: str, state: State) -> Webhook:
    """Pause a webhook, or go on with it. Raises NotFound."""
    conn.execute(update(webhook).where(*_owned(webhook_id, client_id)).values(state=state))
    return get(conn, webhook_id, client_id)


def remove(conn: Connection, webhook_id: str, client_id: str) -> None:
    """Delete a webhook with its deliveries, sent or not. Raises NotFound."""
    if conn.execute(delete(webhook).where(*_owned(webhook_id, client_id))).rowcount == 0:
        raise NotFound(webhook_id=webhook_id)


def deliveries(
    conn: Connection, webhook_id: str, client_id: str, cursor: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[Delivery]:
    """What was and will be delivered to a webhook, newest first. Raises NotFound, and as `pages.newest_first` does."""
    get(conn, webhook_id, client_id)
    page = newest_first(conn, delivery, delivery.c.webhook_id == webhook_id, cursor=cursor, limit=limit)
    return Page([Delivery(**row) for row in page.data], page.next)


def tell(conn: Connection, client_id: str, event: str, data: dict[str, Any]) -> int:
    """Write a delivery, due at once, for each webhook of the client that wants such events; returns how many."""
    hooks = conn.execute(select(webhook.c.id, webhook.c.events).where(webhook.c.client_id == client_id))
    rows = []
    for webhook_id in (hook.id for hook in hooks if event in hook.events):
        delivery_id, at = clock.new_id(), clock.now()
        payload = {"type": event, "id": delivery_id, "at": at, "data": data}
        rows.append(
            {
                "id": delivery_id,
                "webhook_id": webhook_id,
                "event": event,
                "payload": payload,
                "next_at": 0.0,
                "created_at": at,
            }
        )
    if rows:
        conn.execute(insert_into(delivery), rows)
    return len(rows)


def next_due(conn: Connection, busy: Collection[str] = ()) -> float | None:
    """When the next delivery is due to a webhook that is active and not among `busy`; None while there is none."""
    first: float | None = conn.execute(select(func.min(delivery.c.next_at)).where(*_waiting(busy))).scalar_one()
    return first


def claim(
    conn: Connection, *, now: float, lease_s: float, limit: int, busy: Collection[str] = ()
) -> list[tuple[Webhook, Delivery]]:
    """Take up to `limit` due deliveries for `lease_s`, one a webhook, none for those in `busy`.

    So a receiver that is slow keeps one sender busy, and what it gets comes in order unless something was retried.
    """
    due = [*_waiting(busy), delivery.c.next_at <= now]
    lost = update(delivery).where(*due, delivery.c.attempts >= MAX_ATTEMPTS)
    conn.execute(lost.values(state="failed", error=LOST, ended_at=clock.now()))
    first = func.row_number().over(partition_by=delivery.c.webhook_id, order_by=(delivery.c.next_at, delivery.c.id))
    ranked = select(delivery.c.id, delivery.c.next_at, first.label("place")).where(*due).subquery()
    chosen = select(ranked.c.id).where(ranked.c.place == 1).order_by(ranked.c.next_at, ranked.c.id).limit(limit)
    taken = (
        update(delivery)
        .where(delivery.c.id.in_(chosen), *due)
        .values(state="sending", attempts=delivery.c.attempts + 1, next_at=now + lease_s)
        .returning(delivery)
    )
    claimed = [Delivery(**row) for row in conn.execute(taken).mappings()]
    hooks = select(webhook).where(webhook.c.id.in_([one.webhook_id for one in claimed]))
    by_id = {row["id"]: Webhook(**row) for row in conn.execute(hooks).mappings()}
    return [(by_id[one.webhook_id], one) for one in claimed]


def delivered(conn: Connection, claimed: Delivery, status: int) -> bool:
    """End a claimed delivery that its receiver took; False if the claim was over."""
    return _change(conn, claimed, state="delivered", status=status, error=None, ended_at=clock.now())


def failed(
    conn: Connection, claimed: Delivery, error: str, *, status: int | None, now: float, for_good: bool = False
) -> bool:
    """End this try: due again a while later; failed after the last one or `for_good`. False if the claim was over."""
    if for_good or claimed.attempts >= MAX_ATTEMPTS:
        return _change(conn, claimed, state="failed", status=status, error=error, ended_at=clock.now())
    later = now + backoff_s(claimed.attempts)
    return _change(conn, claimed, state="pending", status=status, error=error, next_at=later)


def release(conn: Connection, claimed: Delivery) -> bool:
    """Give a claimed delivery back: it is due at once, and this try does not count. False if the claim was over."""
    return _change(conn, claimed, state="pending", attempts=claimed.attempts - 1, next_at=0.0)


def take_back(conn: Connection) -> None:
    """Make all that is being sent due at once, for the start of a server that is the only sender: nobody sends it."""
    conn.execute(update(delivery).where(delivery.c.state == "sending").values(state="pending", next_at=0.0))


def remove_ended(conn: Connection, before: str, limit: int = 1000) -> int:
    """Delete up to `limit` deliveries that ended before then (RFC 3339); returns how many."""
    old = select(delivery.c.id).where(delivery.c.ended_at < before).order_by(delivery.c.ended_at).limit(limit)
    return conn.execute(delete(delivery).where(delivery.c.id.in_(old))).rowcount


def backoff_s(attempts: int) -> float:
    """How long after that many tries the next comes: doubling, with jitter so that a crowd does not return at once."""
    return random.uniform(0.75, 1.25) * RETRY_FIRST_S * 2.0 ** (attempts - 1)


def _owned(webhook_id: str, client_id: str) -> tuple[ColumnElement[bool], ...]:
    return webhook.c.id == webhook_id, webhook.c.client_id == client_id


def _waiting(busy: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    active = select(webhook.c.id).where(webhook.c.state == "active")
    return (
        delivery.c.state.in_(("pending", "sending")),
        delivery.c.webhook_id.in_(active),
        delivery.c.webhook_id.not_in(busy),
    )


def _change(conn: Connection, claimed: Delivery, **values: Any) -> bool:
    held = (delivery.c.id == claimed.id, delivery.c.state == "sending", delivery.c.attempts == claimed.attempts)
    return conn.execute(update(delivery).where(*held).values(values)).rowcount == 1
