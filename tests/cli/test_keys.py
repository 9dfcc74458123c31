"""`callreel keys`: in a data folder that nobody uses, and at the server that does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from callreel.measure.harness import ServerProcess, free_port
from callreel.storage.database import Database
from tests.cli.running import inside, refused
from tests.server.helpers import served


def listed(*reach: str | Path, **environment: str) -> dict[str, dict[str, Any]]:
    ended = inside("keys", "list", "--json", *reach, **environment)
    assert ended.returncode == 0, ended
    return {noun["name"]: noun for noun in map(json.loads, ended.stdout.splitlines())}


def key_of(*words: str | Path, **environment: str) -> str:
    ended = inside("keys", *words, **environment)
    assert ended.returncode == 0 and "only now" in ended.stderr, ended
    assert ended.stdout.startswith("cr_")
    return ended.stdout.strip()


def test_before_the_first_start_keys_are_made_in_the_data_folder(tmp_path: Path) -> None:
    reach, nobody = ("--data-dir", tmp_path / "data"), {"CALLREEL_PORT": str(free_port())}
    assert "admin" in refused(inside("keys", "create", "bob", *reach, **nobody))[0]
    first = key_of("create", "ann", "--role", "admin", *reach, **nobody)
    key_of("create", "bob", *reach, **nobody)
    assert {name: noun["role"] for name, noun in listed(*reach, **nobody).items()} == {"bob": "user", "ann": "admin"}
    what = refused(inside("keys", "create", "bob", *reach, **nobody))
    assert "'bob' already" in what[0]
    rotated = key_of("rotate", "bob", *reach, **nobody)
    assert rotated != first
    ended = inside("keys", "revoke", listed(*reach, **nobody)["bob"]["id"], *reach, **nobody)
    assert ended.returncode == 0 and ended.stdout == "bob has no key any more\n"
    found = listed(*reach, **nobody)
    assert (found["bob"]["active"], found["ann"]["active"]) == (False, True)
    shown = inside("keys", "list", *reach, **nobody).stdout.splitlines()
    assert shown[0].split() == ["name", "role", "key", "made", "id"] and len(shown) == 3
    what = refused(inside("keys", "revoke", "carl", *reach, **nobody))
    assert what == ["callreel: There is no client 'carl'", "  callreel keys list"]


def test_a_folder_that_some_server_holds_is_reached_through_it_alone(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "data")
    try:
        port = str(free_port())
        what, hint = refused(inside("keys", "list", "--data-dir", tmp_path / "data", CALLREEL_PORT=port))
    finally:
        database.close()
    assert "A server holds" in what and port in what and "--url" in hint and "--key" in hint


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with served(tmp_path_factory.mktemp("keys")) as server:
        yield server


def test_a_server_is_asked_over_http(guarded: ServerProcess) -> None:
    url = ("--url", f"http://127.0.0.1:{guarded.port}")
    ann = key_of("create", "ann", "--role", "admin", *url)
    bob = key_of("create", "bob", *url, "--key", ann)
    holds = {"CALLREEL_DATA_DIR": str(guarded.data), "CALLREEL_PORT": str(guarded.port), "CALLREEL_KEY": ann}
    assert set(listed(**holds)) == {"ann", "bob"}
    what, hint = refused(inside("keys", "list", *url, "--key", "cr_wrong"))
    assert "API key" in what and "--key" in hint
    assert "admin" in refused(inside("keys", "list", *url, "--key", bob))[0]
    bob = key_of("rotate", "bob", *url, "--key", ann)
    assert inside("keys", "revoke", "bob", *url, "--key", ann).returncode == 0
    assert not listed(*url, "--key", ann)["bob"]["active"]
