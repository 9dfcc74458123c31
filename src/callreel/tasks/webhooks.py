"""The courier: sends what webhooks are due, beside everything else that the server does.

A delivery is a POST of its event as JSON, with these headers (docs/webhooks.md shows how to check them):

    Callreel-Event: job
    Callreel-Delivery: its id, the same each time that it is tried
    Callreel-Timestamp: seconds since the epoch, of this try
    Callreel-Signature: sha256=HEX, the HMAC-SHA256 of "TIMESTAMP.BODY" under the webhook's secret
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import msgspec

from callreel import metrics
from callreel.errors import CallreelError, StorageUnavailable
from callreel.jobs import webhooks
from callreel.jobs.webhooks import Delivery, Webhook
from callreel.net import Answer, post
from callreel.storage.database import Database

log = logging.getLogger("callreel.webhooks")

T = TypeVar("T")

SENDERS = 16  # deliveries under way at once, each to another webhook
TIMEOUT_S = 10.0  # of one try, all together
LEASE_S = TIMEOUT_S + 10.0
IDLE_S = 1.0  # between two looks for what is due
STOP_S = 1.0  # what is under way gets so long when the server stops; then it is given back
SHOWN_CHARS = 200  # of what a receiver said when it refused


class Courier:
    """Sends deliveries until it is stopped; what is under way then is due again at the next start.

    The rows are the truth: it may be killed at any point, and each delivery still arrives at least once.
    """

    def __init__(self, database: Database, *, allow_networks: Sequence[str]) -> None:
        self._database, self._allow_networks = database, allow_networks
        self._sending: dict[asyncio.Task[None], Delivery] = {}
        self._room = asyncio.Event()  # set when a delivery ended: its webhook may have the next one
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work(), name="courier")

    async def stop(self) -> None:
        """Send no more. A try that does not end soon is given back, and does not count."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._sending:
            await asyncio.wait(self._sending, timeout=STOP_S)
        given_back = list(self._sending.values())
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        with suppress(StorageUnavailable):  # then they are sent again when their leases are over
            await self._database.write(lambda conn: [webhooks.release(conn, one) for one in given_back])

    async def _work(self) -> None:
        while True:
            self._room.clear()
            try:
                await self._send_due()
            except StorageUnavailable as error:
                log.error("webhooks wait for the database: %s", error)
            except Exception:  # a mistake of ours must not end all deliveries
                log.exception("webhooks could not be looked through; the next look comes in a moment")
            with suppress(TimeoutError):  # not wait_for: before Python 3.12 it may swallow a cancellation
                async with asyncio.timeout(IDLE_S):
                    await self._room.wait()

    async def _send_due(self) -> None:
        room = SENDERS - len(self._sending)
        busy = [delivery.webhook_id for delivery in self._sending.values()]
        # A look costs a read; only what is due costs a write.
        due_at = await self._database.read(lambda conn: webhooks.next_due(conn, busy)) if room else None
        now = time.time()
        if due_at is None or due_at > now:
            return
        claim = partial(webhooks.claim, now=now, lease_s=LEASE_S, limit=room, busy=busy)
        for hook, delivery in await self._database.write(claim):
            task = asyncio.create_task(self._deliver(hook, delivery), name=f"delivery-{delivery.id}")
            self._sending[task] = delivery
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the outcome of a delivery is not stored, it is sent again: %s", error)

    async def _deliver(self, hook: Webhook, delivery: Delivery) -> None:
        body = msgspec.json.encode(delivery.payload)
        headers = {
            "Content-Type": "application/json",
            "Callreel-Event": delivery.event,
            "Callreel-Delivery": delivery.id,
            **signature(hook.secret, body, int(time.time())),
        }
        sending = partial(post, hook.url, body, headers, timeout_s=TIMEOUT_S, allow_networks=self._allow_networks)
        status, error, for_good = None, None, False
        try:
            answer: Answer = await _in_thread(sending)
        except CallreelError as failure:
            error, for_good = str(failure), not failure.transient
        else:
            status = answer.status
            if not answer.accepted:
                error = f"answered {answer.status}: {answer.text[:SHOWN_CHARS]}"
        metrics.webhook_tries.labels("delivered" if error is None else "failed").inc()
        if error is None:
            assert status is not None
            await self._database.write(partial(webhooks.delivered, claimed=delivery, status=status))
            return
        log.warning("webhook %s: delivery %s, try %d: %s", hook.id, delivery.id, delivery.attempts, error)
        await self._database.write(
            partial(webhooks.failed, claimed=delivery, error=error, status=status, now=time.time(), for_good=for_good)
        )


def signature(secret: str, body: bytes, timestamp: int) -> dict[str, str]:
    """The headers by which a receiver knows that a delivery is ours, and of now."""
    signed = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Callreel-Timestamp": str(timestamp), "Callreel-Signature": f"sha256={signed}"}


async def _in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises, from a thread of its own that nobody waits for once this is cancelled."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: the server is gone
            loop.call_soon_threadsafe(settle, result, error)

    # A pool's threads would hold up the end of the process for as long as a receiver is slow.
    threading.Thread(target=run, name="webhook", daemon=True).start()
    return await future
