"""Which engines there are, and how one is found by name. A new engine is one file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from callreel.engines.base import Engine, EngineSpec
from callreel.errors import InvalidInput, ModelMissing

ENGINES = {
    "whisper": "callreel.engines.whisper:load",
    "pocketsphinx": "callreel.engines.pocketsphinx:load",
}
AUTO = "auto"


def resolve(spec: EngineSpec) -> tuple[EngineSpec, list[str]]:
    """`auto` made definite: Whisper if its model is on this machine, else PocketSphinx, with a warning that says so."""
    if spec.engine != AUTO:
        return spec, warnings_of(spec.engine)
    from callreel.engines.whisper import find_model

    try:
        find_model(spec.model, Path(spec.models_folder), download=spec.download)
        return replace(spec, engine="whisper"), []
    except ModelMissing as error:
        return replace(spec, engine="pocketsphinx", model="en-us"), [f"{error}.", *warnings_of("pocketsphinx")]


def warnings_of(engine: str) -> list[str]:
    """What every transcript of this engine must say of itself."""
    if engine == "pocketsphinx":
        from callreel.engines.pocketsphinx import WARNING

        return [WARNING]
    return []


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
