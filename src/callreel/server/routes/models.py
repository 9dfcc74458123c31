"""/v1/models: what OpenAI's clients may name, in the shape that they check."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from callreel.engines.shelf import is_folder
from callreel.errors import NotFound
from callreel.server.openai.asked import DEFAULT_NAMES
from callreel.server.services import Client, House, Services

router = APIRouter(prefix="/v1/models", tags=["OpenAI"])

OWNER = "callreel"


@router.get("")
async def list_models(house: House, client: Client) -> dict[str, Any]:
    """The models on this machine, and OpenAI's names, which all mean the server's default one."""
    return {"object": "list", "data": [_model(name, made) for name, made in (await _known(house)).items()]}


@router.get("/{model:path}")
async def get(house: House, client: Client, model: str) -> dict[str, Any]:
    """One model by its name, a hub repository id for example."""
    known = await _known(house)
    if model not in known:
        raise ModelNotFound(
            f"The model {model[:100]!r} is not on this server", hint="GET /v1/models lists those that are"
        )
    return _model(model, known[model])


class ModelNotFound(NotFound):
    """There is no such model."""

    code = "model_not_found"


async def _known(house: Services) -> dict[str, int]:
    """When each was put on this machine, seconds since the epoch, by name."""
    here = await asyncio.to_thread(house.speech.models)
    settings = house.settings
    default = settings.final.model or settings.model
    named = {} if is_folder(default) else {default: 0}  # where the server keeps its folders is its own business
    return {name: here.get(default, 0) for name in DEFAULT_NAMES} | named | here


def _model(name: str, made: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": made, "owned_by": OWNER}
