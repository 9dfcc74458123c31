from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.catalogue import AUTO, ENGINES, load, resolve, warnings_of
from callreel.engines.pocketsphinx import PocketSphinxEngine
from callreel.engines.whisper import WhisperEngine
from callreel.errors import InvalidInput, ModelMissing
from tests.engines import fake_engines


def spec(engine: str, model: str | Path = "small") -> EngineSpec:
    return EngineSpec(engine, str(model), "/nowhere/models")


def test_auto_is_whisper_where_its_model_is(toy_model: Path) -> None:
    asked = spec(AUTO, toy_model)
    assert resolve(asked) == (replace(asked, engine="whisper"), [])
    assert isinstance(load(resolve(asked)[0]), WhisperEngine)


@pytest.mark.parametrize("model", ["small", "no-such-model", "/no/such/folder"])
def test_auto_falls_back_and_says_so(model: str) -> None:
    found, warnings = resolve(spec(AUTO, model))
    assert (found.engine, found.model) == ("pocketsphinx", "en-us")
    why, weak = warnings
    assert repr(model) in why
    assert "accuracy is low" in weak
    assert isinstance(load(found), PocketSphinxEngine)


def test_what_is_asked_for_by_name_is_kept() -> None:
    assert resolve(spec("whisper")) == (spec("whisper"), [])
    found, warnings = resolve(spec("pocketsphinx"))
    assert found == spec("pocketsphinx")
    assert warnings == warnings_of("pocketsphinx") != []


def test_a_named_engine_without_its_model_does_not_become_another() -> None:
    with pytest.raises(ModelMissing):
        load(spec("whisper"))


@pytest.mark.parametrize("engine", ["wisper", "", ":", "module:", ":function"])
def test_an_engine_nobody_knows(engine: str) -> None:
    with pytest.raises(InvalidInput, match="no engine called") as caught:
        load(spec(engine))
    assert all(name in caught.value.hint for name in (AUTO, *ENGINES))


@pytest.mark.parametrize("engine", ["no.such.module:load", f"{fake_engines.__name__}:no_such_function"])
def test_an_engine_from_elsewhere_that_is_not_there(engine: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be imported"):
        load(spec(engine))


def test_an_engine_from_elsewhere() -> None:
    engine = load(spec(fake_engines.NAME, "mine"))
    assert (engine.name, engine.model, engine.capabilities) == ("scripted", "mine", fake_engines.CAPABILITIES)
    (decoded,) = engine.decode([Window(np.zeros(160, np.int16))], DecodeOptions("en"))
    assert [w.word for w in decoded.words] == [" heard", " 160"]


def test_what_its_loading_says_is_heard() -> None:
    with pytest.raises(ModelMissing, match="gone for a walk"):
        load(spec(fake_engines.NAME, "missing"))
