from __future__ import annotations

import pytest
from sqlalchemy import Connection

from callreel import clock
from callreel.errors import InvalidInput, NotFound
from callreel.jobs import store, webhooks
from callreel.jobs.webhooks import Delivery, Webhook

NOW = 1_800_000_000.0
LEASE_S = 20.0
USAGE = {"wall_s": 2.0, "cpu_s": 1.5, "peak_rss_bytes": 1_000, "audio_s": 60.0, "rtfx": 30.0}
ERROR = {"code": "job_died", "message": "It died.", "hint": ""}


@pytest.fixture
def hook(conn: Connection, client_id: str) -> Webhook:
    return webhooks.create(conn, client_id=client_id, url="https://example.com/", events=["job"])


def tell(conn: Connection, client_id: str, **data: object) -> None:
    webhooks.tell(conn, client_id, "job", data)


def claim(conn: Connection, now: float = NOW, limit: int = 16, busy: tuple[str, ...] = ()) -> list[Delivery]:
    claimed = webhooks.claim(conn, now=now, lease_s=LEASE_S, limit=limit, busy=busy)
    assert all(hook.id == delivery.webhook_id for hook, delivery in claimed)
    return [delivery for _, delivery in claimed]


def sent(conn: Connection, hook: Webhook) -> list[Delivery]:
    """All deliveries of a webhook, oldest first."""
    return webhooks.deliveries(conn, hook.id, hook.client_id).data[::-1]


def test_a_webhook_is_its_owners_alone(conn: Connection, hook: Webhook, client_id: str, other_client_id: str) -> None:
    assert (hook.url, hook.events, hook.state) == ("https://example.com/", ["job"], "active")
    assert hook.secret.startswith("whsec_") and len(hook.secret) > 40
    assert webhooks.get(conn, hook.id, client_id) == hook
    assert webhooks.list_page(conn, client_id).data == [hook]
    assert webhooks.list_page(conn, other_client_id).data == []
    for refused in (
        lambda: webhooks.get(conn, hook.id, other_client_id),
        lambda: webhooks.set_state(conn, hook.id, other_client_id, "paused"),
        lambda: webhooks.remove(conn, hook.id, other_client_id),
        lambda: webhooks.deliveries(conn, hook.id, other_client_id),
    ):
        with pytest.raises(NotFound):
            refused()


def test_what_cannot_be_told_is_refused(conn: Connection, client_id: str) -> None:
    for events in ([], ["weather"], ["job", "weather"]):
        with pytest.raises(InvalidInput):
            webhooks.create(conn, client_id=client_id, url="https://example.com/", events=events)


def test_a_client_has_so_many_and_no_more(conn: Connection, client_id: str) -> None:
    for i in range(webhooks.MOST):
        webhooks.create(conn, client_id=client_id, url=f"https://example.com/{i}", events=["job"])
    with pytest.raises(InvalidInput, match="at most 20"):
        webhooks.create(conn, client_id=client_id, url="https://example.com/", events=["job"])


def test_every_end_of_a_job_is_told_in_its_transaction(conn: Connection, hook: Webhook, client_id: str) -> None:
    def add() -> store.Job:
        store.enqueue(conn, client_id=client_id, kind="transcribe", params={"secret": "x"}, now=NOW)
        taken = store.claim(conn, kinds=["transcribe"], lease_s=1, now=NOW)
        assert taken is not None
        return taken

    done, broken, cancelled, lost = (add() for _ in range(4))
    assert sent(conn, hook) == []
    store.succeed(conn, done.id, 1, {"transcript_id": "t"}, USAGE)
    store.fail(conn, broken.id, 1, ERROR, retry_at=None)
    store.cancel(conn, cancelled.id)
    store.cancel(conn, cancelled.id)  # twice is one end
    for attempt in (1, 2, 3):
        store.requeue_abandoned(conn, NOW + 2, all_running=True)
        assert len(sent(conn, hook)) == (4 if attempt == 3 else 3)
        store.claim(conn, kinds=["transcribe"], lease_s=1, now=NOW)

    told = [delivery.payload["data"] for delivery in sent(conn, hook)]
    assert [(job["id"], job["state"]) for job in told] == [
        (done.id, "succeeded"),
        (broken.id, "failed"),
        (cancelled.id, "cancelled"),
        (lost.id, "failed"),
    ]
    assert told[0]["result"] == {"transcript_id": "t"} and told[0]["usage"] == USAGE
    assert told[1]["error"] == ERROR
    assert not {"params", "client_id", "cache_key"} & told[0].keys()


def test_a_failure_that_is_tried_again_is_no_end(conn: Connection, hook: Webhook, client_id: str) -> None:
    store.enqueue(conn, client_id=client_id, kind="transcribe", params={}, now=NOW)
    taken = store.claim(conn, kinds=["transcribe"], lease_s=1, now=NOW)
    assert taken is not None
    store.fail(conn, taken.id, 1, ERROR, retry_at=NOW)
    assert store.release(conn, taken.id, 1) is False
    assert sent(conn, hook) == []


def test_only_the_owners_webhooks_are_told(conn: Connection, hook: Webhook, other_client_id: str) -> None:
    other = webhooks.create(conn, client_id=other_client_id, url="https://example.com/", events=["job"])
    tell(conn, other_client_id, id="j")
    assert webhooks.tell(conn, other_client_id, "call", {}) == 0
    assert sent(conn, hook) == []
    (told,) = sent(conn, other)
    assert told.payload == {"type": "job", "id": told.id, "at": told.created_at, "data": {"id": "j"}}
    assert (told.state, told.attempts, told.status, told.error) == ("pending", 0, None, None)


def test_a_claim_is_one_delivery_a_webhook_the_oldest_first(conn: Connection, hook: Webhook, client_id: str) -> None:
    second = webhooks.create(conn, client_id=client_id, url="https://example.com/2", events=["job"])
    for i in range(3):
        tell(conn, client_id, i=i)
    assert webhooks.next_due(conn) == 0.0
    claimed = claim(conn)
    assert sorted(d.webhook_id for d in claimed) == sorted([hook.id, second.id])
    assert [d.payload["data"]["i"] for d in claimed] == [0, 0]
    assert [d.payload["data"]["i"] for d in claim(conn, busy=(second.id,))] == [1]
    assert claim(conn, limit=0) == []


def test_a_delivery_that_was_taken_has_ended(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id)
    (claimed,) = claim(conn)
    assert webhooks.delivered(conn, claimed, 204)
    (told,) = sent(conn, hook)
    assert (told.state, told.attempts, told.status) == ("delivered", 1, 204) and told.ended_at is not None
    assert claim(conn, NOW + 1e6) == [] and webhooks.next_due(conn) is None
    assert not webhooks.failed(conn, claimed, "late", status=None, now=NOW)


def test_tries_come_later_and_later_and_end(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id)
    at = NOW
    for wait_s in (2.0, 4.0):
        (claimed,) = claim(conn, at)
        assert webhooks.failed(conn, claimed, "answered 500", status=500, now=at)
        due = webhooks.next_due(conn)
        assert due is not None and 0.75 * wait_s <= due - at <= 1.25 * wait_s
        assert claim(conn, due - 0.01) == []
        at = due
    (claimed,) = claim(conn, at)
    webhooks.failed(conn, claimed, "answered 500", status=500, now=at)
    (told,) = sent(conn, hook)
    assert (told.state, told.attempts, told.status, told.error) == ("failed", 3, 500, "answered 500")
    assert webhooks.next_due(conn) is None


def test_what_can_never_work_is_not_tried_again(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id)
    webhooks.failed(conn, claim(conn)[0], "not allowed", status=None, now=NOW, for_good=True)
    assert [(d.state, d.attempts) for d in sent(conn, hook)] == [("failed", 1)]


def test_a_lost_sender_loses_nothing_but_time(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id)
    (first,) = claim(conn)
    assert claim(conn, NOW + LEASE_S - 1) == []
    (second,) = claim(conn, NOW + LEASE_S)
    assert (second.id, second.attempts) == (first.id, 2)
    assert not webhooks.delivered(conn, first, 200)  # it came back too late, the fence holds
    claim(conn, NOW + 2 * LEASE_S)
    assert claim(conn, NOW + 3 * LEASE_S) == []
    (told,) = sent(conn, hook)
    assert (told.state, told.error) == ("failed", webhooks.LOST)


def test_the_only_sender_takes_back_what_a_lost_one_had(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id)
    (lost,) = claim(conn)
    webhooks.take_back(conn)
    (again,) = claim(conn)
    assert (again.id, again.attempts) == (lost.id, 2)
    webhooks.failed(conn, again, "answered 500", status=500, now=NOW)
    webhooks.take_back(conn)
    assert claim(conn) == []  # what waits for its next try goes on waiting


def test_a_try_that_was_given_back_does_not_count(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id)
    (claimed,) = claim(conn)
    assert webhooks.release(conn, claimed)
    assert [d.attempts for d in claim(conn)] == [1]


def test_a_paused_webhook_gets_what_it_missed(conn: Connection, hook: Webhook, client_id: str) -> None:
    assert webhooks.set_state(conn, hook.id, client_id, "paused").state == "paused"
    tell(conn, client_id)
    assert webhooks.next_due(conn) is None and claim(conn) == []
    webhooks.set_state(conn, hook.id, client_id, "active")
    assert len(claim(conn)) == 1


def test_with_a_webhook_go_its_deliveries(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id)
    (claimed,) = claim(conn)
    webhooks.remove(conn, hook.id, client_id)
    assert not webhooks.delivered(conn, claimed, 200)
    assert claim(conn, NOW + 1e6) == []


def test_old_deliveries_go_and_pending_ones_stay(conn: Connection, hook: Webhook, client_id: str) -> None:
    tell(conn, client_id, i=0)
    webhooks.delivered(conn, claim(conn)[0], 200)
    tell(conn, client_id, i=1)
    assert webhooks.remove_ended(conn, clock.ago(60)) == 0
    assert webhooks.remove_ended(conn, clock.ago(-60)) == 1
    assert [d.payload["data"]["i"] for d in sent(conn, hook)] == [1]
