"""`callreel models`: the list, and how models come and go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callreel.engines.models import MODELS
from callreel.measure import measured
from tests.cli.running import inside, refused
from tests.engines.fake_hub import Hub


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("HF_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CALLREEL_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def hub(toy_model: Path) -> Iterator[Hub]:
    with Hub(toy_model) as hub:
        yield hub


def listed() -> dict[str, dict[str, Any]]:
    ended = inside("models", "--json")
    assert ended.returncode == 0, ended
    return {noun["name"]: noun for noun in map(json.loads, ended.stdout.splitlines())}


def test_the_list_says_what_each_model_asks_and_gives(tmp_path: Path) -> None:
    measured.remember(tmp_path / "data", "base", 31.26, threads=2)
    found = listed()
    assert list(found) == [info.name for info in MODELS] and not any(noun["present"] for noun in found.values())
    base = found["base"]
    assert (base["languages"], base["rtfx"], base["rtfx_threads"]) == (99, 31.3, 2) and base["ram_bytes"] > 10**8
    head, *rows = inside("models").stdout.splitlines()
    columns = ["model", "here", "download", "RAM", "VRAM", "languages", "speed", "RTFx", "for"]
    assert head.split() == columns and len(rows) == len(MODELS)
    assert {"7x", "31.3", "450"} <= {*next(row for row in rows if row.startswith("base ")).split()}


def test_a_model_of_ones_own_is_imported_used_and_removed(toy_model: Path, toy_audio: Path, tmp_path: Path) -> None:
    ended = inside("models", "import", toy_model, "--name", "toy")
    assert ended.returncode == 0 and ended.stdout == f"toy: {tmp_path / 'data' / 'models' / 'toy'}\n"
    toy = listed()["toy"]
    assert toy["present"] and toy["size_bytes"] > 10**6
    assert inside("models").stdout.splitlines()[-1].split()[:2] == ["toy", "yes"]
    doctor = inside("doctor", "--engine", "whisper", "--model", "toy", "--port", "0", "--live-port", "0", "--json")
    models = [finding for finding in json.loads(doctor.stdout)["findings"] if "model" in finding["name"]]
    assert [finding["status"] for finding in models] == ["ok"]
    assert "already" in refused(inside("models", "import", toy_model, "--name", "toy"))[0]
    ended = inside("models", "remove", "toy")
    assert ended.returncode == 0 and ended.stdout.startswith("toy removed, ")
    assert "toy" not in listed() and (toy_model / "model.bin").exists()
    assert "'toy'" in refused(inside("models", "remove", "toy"))[0]
    assert "no whole Whisper model" in refused(inside("models", "import", toy_audio))[0]


def test_a_model_is_pulled_from_a_mirror(hub: Hub, tmp_path: Path) -> None:
    where = {"CALLREEL_MODELS_HUB_URL": hub.url}
    ended = inside("models", "pull", "tiny", **where)
    assert ended.returncode == 0 and ended.stdout == f"{tmp_path / 'data' / 'models' / 'tiny'}\n", ended
    assert listed()["tiny"]["present"]
    what, hint = refused(inside("models", "pull", "tny", **where))[-2:]
    assert "'tiny' is the nearest" in what and "tiny" in hint


def test_a_model_in_nobodys_reach_is_said_so() -> None:
    what, hint = refused(inside("models", "pull", "tiny", CALLREEL_MODELS_HUB_URL="http://127.0.0.1:1"))[-2:]
    assert "127.0.0.1:1" in what and "models import" in hint
