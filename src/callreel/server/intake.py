"""From a request to a queued job: there is room, what was asked for is there, its file is kept, its row written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from callreel import clock
from callreel.jobs import store as jobs
from callreel.server.forms import Upload
from callreel.server.services import Services
from callreel.storage.files import adopt
from callreel.storage.removal import remove_call
from callreel.tasks import transcribe


@dataclass(frozen=True, slots=True)
class Order:
    """A transcription that a client asked for; `upload` None: the job fetches the URL in `params`."""

    client_id: str
    params: transcribe.Params
    upload: Upload | None
    title: str
    priority: str = "normal"
    labels: dict[str, Any] | None = None
    idempotency_key: str | None = None
    job_id: str | None = None


async def require_room(house: Services, client_id: str, idempotency_key: str | None = None) -> None:
    """Raise QueueFull before a body is read that nothing could come of; a job that is made already has its room."""
    limit, slots = house.settings.jobs.queue_limit, house.runner.limits.slots[transcribe.KIND]

    def look(conn: Connection) -> None:
        if idempotency_key is None or jobs.find(conn, client_id, idempotency_key) is None:
            jobs.require_room(conn, transcribe.KIND, queue_limit=limit, slots=slots)

    await house.database.read(look)


async def submit(house: Services, order: Order) -> tuple[jobs.Job, bool]:
    """The queued job, and whether it is new: of those with one idempotency key only the first is.

    Its file is moved into its place. Raises InvalidInput for an engine or model that there is not, QueueFull, and
    Conflict for a key that was used for another request.
    """
    params, limits = order.params, house.settings.jobs
    await house.speech.check(params.engine, params.model)
    call_id = clock.new_id()
    source = house.folder.source_of(call_id)
    try:
        if order.upload is not None:
            await asyncio.to_thread(adopt, order.upload.path, source)
        job, new = await house.database.write(
            lambda conn: transcribe.submit(
                conn,
                client_id=order.client_id,
                call_id=call_id,
                title=order.title,
                params=params,
                priority=order.priority,
                labels=order.labels,
                job_id=order.job_id,
                idempotency_key=order.idempotency_key,
                max_attempts=limits.max_attempts,
                queue_limit=limits.queue_limit,
                slots=house.runner.limits.slots[transcribe.KIND],
                ageing_s=limits.ageing_s,
            )
        )
    except Exception:  # not a cancellation: the row may be written all the same, and the cleaner finds what has none
        await asyncio.to_thread(remove_call, house.folder, call_id)
        raise
    if new:
        house.runner.wake()
    else:
        await asyncio.to_thread(remove_call, house.folder, call_id)
    return job, new
