"""Is it alive, is it ready, which version, and all its numbers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from callreel import __version__
from callreel.server.services import House

router = APIRouter(tags=["server"])


@router.get("/health")
async def health(house: House) -> dict[str, Any]:
    """Answers while the server runs; `warnings` say what it is not doing as well as it could."""
    return {
        "status": "ok",
        "version": __version__,
        "live": {"engine": house.live.engine.name, "model": house.live.engine.model},
        "warnings": sorted({*house.engine_warnings, *house.live.engine.warnings}),
    }


@router.get("/version")
async def version() -> dict[str, str]:
    """Which Callreel this is."""
    return {"version": __version__}


@router.get("/metrics")
async def metrics() -> Response:
    """Prometheus text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
