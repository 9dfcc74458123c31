"""The server itself: is it alive, is it ready, which version, what the machine has left, and all its numbers."""

from __future__ import annotations

import asyncio
import platform
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from callreel import __version__, metrics
from callreel.errors import StorageUnavailable
from callreel.jobs import store as jobs
from callreel.server.services import Client, House, Services
from callreel.server.uploads import RESERVE_BYTES

router = APIRouter(tags=["server"])

ANSWERS_WITHIN_S = 2.0
RETRY_S = 5


@router.get("/health")
async def health(house: House) -> dict[str, Any]:
    """Answers while the server runs; `warnings` say what it is not doing as well as it could."""
    return {
        "status": "ok",
        "version": __version__,
        "live": {"engine": house.live.engine.name, "model": house.live.engine.model},
        "warnings": sorted({*house.engine_warnings, *house.live.engine.warnings, *_disk(house)}),
    }


@router.get("/ready")
async def ready(house: House) -> JSONResponse:
    """200 when it can take work; 503 with the `reasons` when it cannot: database, live engine, disk."""
    found = await asyncio.gather(_database(house), _live_engine(house))
    reasons = [*filter(None, found), *_disk(house)]
    if reasons:
        return JSONResponse({"ready": False, "reasons": reasons}, 503, {"Retry-After": str(RETRY_S)})
    return JSONResponse({"ready": True, "reasons": []})


@router.get("/version")
async def version() -> dict[str, str]:
    """Which Callreel this is, and what it runs on."""
    return {"version": __version__, "python": platform.python_version(), "system": platform.system()}


@router.get("/v1/system")
async def system(house: House, client: Client) -> dict[str, Any]:
    """Processor, memory, the disk of the data folder, and graphics cards; gigabytes are 10^9 bytes."""
    usage, gpus = await asyncio.gather(house.machine.usage(), house.machine.gpus())
    return {**usage, "gpus": [asdict(gpu) for gpu in gpus]}


@router.get("/metrics", response_class=PlainTextResponse)
async def numbers(house: House) -> Response:
    """Prometheus text format."""
    for gpu in await house.machine.gpus():
        metrics.gpu_memory.labels(str(gpu.index), gpu.name).set(gpu.used_bytes)
    try:
        queued = await house.database.read(jobs.queue_lengths)
    except StorageUnavailable:  # the other numbers are what one needs then
        metrics.task_queue_length.clear()
    else:
        for kind in {*queued, *house.settings.jobs.max_concurrent}:
            metrics.task_queue_length.labels(kind).set(queued.get(kind, 0))
    return Response(await asyncio.to_thread(generate_latest), media_type=CONTENT_TYPE_LATEST)


async def _database(house: Services) -> str | None:
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            await house.database.write(lambda conn: None)
    except (StorageUnavailable, TimeoutError) as error:
        return f"The database does not answer: {error or 'too slow'}"
    return None


async def _live_engine(house: Services) -> str | None:
    if await house.live.is_up(within_s=ANSWERS_WITHIN_S):
        return None
    return "The live engine is being started"


def _disk(house: Services) -> list[str]:
    free = house.folder.free_bytes()
    if free >= RESERVE_BYTES:
        return []
    return [f"The disk of the data folder is full: {free} bytes are free, {RESERVE_BYTES} are needed at least"]
