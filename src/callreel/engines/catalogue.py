"""Which engines there are, and how one is found by name. A new engine is one file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from callreel.engines import hub, shelf
from callreel.engines.base import Engine, EngineSpec
from callreel.errors import InvalidInput

ENGINES = {
    "whisper": "callreel.engines.whisper:load",
    "pocketsphinx": "callreel.engines.pocketsphinx:load",
    "openai": "callreel.engines.openai:load",
}
AUTO = "auto"
WEAK = (
    "Written by PocketSphinx, whose accuracy is low: give a Whisper model for real use "
    "(--engine whisper --model FOLDER_OR_NAME, or CALLREEL_MODEL)."
)


def resolve(spec: EngineSpec) -> tuple[EngineSpec, list[str]]:
    """`auto` made definite, and what must be said about it; no engine is loaded and no library imported for it.

    That is Whisper if its model is on this machine or can be fetched: found out within 3 s. Else it is PocketSphinx,
    and the first warning says what was asked for, why it is not there and how to get it. Raises InvalidInput for a
    model that nobody knows, with the nearest name.
    """
    if spec.engine not in (AUTO, "whisper"):
        return spec, warnings_of(spec.engine)
    here = shelf.find(spec.model, Path(spec.models_folder))
    if here is not None or spec.engine != AUTO:
        return replace(spec, engine="whisper"), []
    why = _why_not(spec)
    if why is None:
        return replace(spec, engine="whisper"), []
    warning = f"The Whisper model {spec.model!r} is not on this machine and {why}; using PocketSphinx instead. "
    return replace(spec, engine="pocketsphinx", model="en-us"), [warning + _how_to_get(spec), WEAK]


def warnings_of(engine: str) -> list[str]:
    """What every transcript of this engine must say of itself."""
    return [WEAK] if engine == "pocketsphinx" else []


def load(spec: EngineSpec) -> Engine:
    """The engine, its model in memory. Raises InvalidInput for an unknown name, ModelMissing for the rest."""
    module, _, function = ENGINES.get(spec.engine, spec.engine).partition(":")
    if not (module and function):
        raise InvalidInput(f"There is no engine called {spec.engine!r}", hint=f"Known: {', '.join([AUTO, *ENGINES])}")
    try:
        loader = cast(Callable[[EngineSpec], Engine], getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"The engine {spec.engine!r} cannot be imported: {error}") from error
    return loader(spec)


def _why_not(spec: EngineSpec) -> str | None:
    """Why the model cannot be fetched either; None if it can."""
    if shelf.repository_of(spec.model) is None:
        return "there is no such folder"
    if not spec.download:
        return "models are not to be fetched (models.download is off)"
    if not hub.reachable(spec.hub_url, spec.proxy):
        return f"{hub.hub_url(spec.hub_url)} cannot be reached"
    return None


def _how_to_get(spec: EngineSpec) -> str:
    if shelf.repository_of(spec.model) is None:
        return "Give a folder that is there, or a model's name."
    return (
        f"To get it: `callreel models pull {shelf.canonical(spec.model)}` when online, or `callreel models import DIR`."
    )
