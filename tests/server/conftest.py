from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from callreel.measure.harness import ServerProcess
from tests.server.helpers import caller, make_clients, served


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    """The local client, which needs no key."""
    with caller(server) as client:
        yield client


@pytest.fixture(scope="session")
def guarded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="session")
def client_keys(guarded_folder: Path) -> dict[str, str]:
    """The keys of an admin and two users of the guarded server."""
    return make_clients(guarded_folder, root="admin", ann="user", bob="user")


@pytest.fixture(scope="session")
def guarded(guarded_folder: Path, client_keys: dict[str, str]) -> Iterator[ServerProcess]:
    """A server with keys, which lets nobody in without one."""
    with served(guarded_folder) as server:
        yield server


@pytest.fixture
def root(guarded: ServerProcess, client_keys: dict[str, str]) -> Iterator[httpx.Client]:
    with caller(guarded, client_keys["root"]) as client:
        yield client


@pytest.fixture
def ann(guarded: ServerProcess, client_keys: dict[str, str]) -> Iterator[httpx.Client]:
    with caller(guarded, client_keys["ann"]) as client:
        yield client


@pytest.fixture
def bob(guarded: ServerProcess, client_keys: dict[str, str]) -> Iterator[httpx.Client]:
    with caller(guarded, client_keys["bob"]) as client:
        yield client
