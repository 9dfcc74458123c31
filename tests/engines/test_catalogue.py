from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callreel.engines import hub
from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.catalogue import AUTO, ENGINES, load, resolve, warnings_of
from callreel.engines.whisper import WhisperEngine
from callreel.errors import InvalidInput, ModelMissing
from tests.engines import fake_engines
from tests.engines.children import environment
from tests.engines.fake_hub import Hub


def spec(engine: str, model: str | Path = "small", **more: Any) -> EngineSpec:
    return EngineSpec(engine, str(model), "/nowhere/models", **more)


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No model of this machine's user is found, and no answer of another test's network is remembered."""
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere/cache")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    hub.forget()
    yield
    hub.forget()


def test_auto_is_whisper_where_its_model_is(toy_model: Path) -> None:
    asked = spec(AUTO, toy_model)
    assert resolve(asked) == (replace(asked, engine="whisper"), [])
    assert isinstance(load(resolve(asked)[0]), WhisperEngine)


def test_auto_is_whisper_where_its_model_can_be_fetched(toy_model: Path) -> None:
    with Hub(toy_model) as near:
        asked = spec(AUTO, "base", download=True, hub_url=near.url)
        assert resolve(asked) == (replace(asked, engine="whisper"), [])
        assert near.asked == []  # it is not fetched yet


@pytest.mark.parametrize(
    ("model", "download", "why", "how"),
    [
        ("small", False, "models.download is off", "callreel models pull small"),
        ("turbo", True, "http://127.0.0.1:1 cannot be reached", "callreel models pull large-v3-turbo"),
        ("someone/something", True, "cannot be reached", "callreel models pull someone/something"),
        ("/no/such/folder", True, "no such folder", "Give a folder"),
    ],
)
def test_auto_falls_back_and_says_so(model: str, download: bool, why: str, how: str) -> None:
    found, warnings = resolve(spec(AUTO, model, download=download, hub_url="http://127.0.0.1:1"))
    assert (found.engine, found.model) == ("pocketsphinx", "en-us")
    said, weak = warnings
    assert repr(model) in said
    assert "using PocketSphinx instead" in said
    assert why in said
    assert how in said
    assert "accuracy is low" in weak


def test_auto_needs_no_library_to_decide() -> None:
    """The server and `callreel --help` start without the weight of the engines."""
    code = (
        "import sys; from callreel.engines.base import EngineSpec; from callreel.engines.catalogue import resolve; "
        "print(resolve(EngineSpec('auto', 'small', '/nowhere'))[0].engine); "
        "print({'ctranslate2', 'faster_whisper', 'pocketsphinx', 'huggingface_hub', 'httpx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split() == ["pocketsphinx", "set()"]


@pytest.mark.parametrize("engine", [AUTO, "whisper"])
def test_a_model_that_nobody_knows_is_never_replaced(engine: str) -> None:
    with pytest.raises(InvalidInput, match="'small' is the nearest") as caught:
        resolve(spec(engine, "smal"))
    assert caught.value.detail["nearest"] == "small"


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
