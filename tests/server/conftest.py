from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from callreel.measure.harness import ServerProcess
from tests.server.helpers import caller, make_clients, served


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def client_keys(data_folder: Path) -> dict[str, str]:
    """The keys of two clients of the server."""
    return make_clients(data_folder, "ann", "bob")


@pytest.fixture(scope="session")
def server(data_folder: Path, client_keys: dict[str, str]) -> Iterator[ServerProcess]:
    """One server for all tests that leave it running; its stalls are short and its uploads small."""
    with served(data_folder) as server:
        yield server


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    """The local client, which needs no key."""
    with caller(server) as client:
        yield client


@pytest.fixture
def ann(server: ServerProcess, client_keys: dict[str, str]) -> Iterator[httpx.Client]:
    with caller(server, client_keys["ann"]) as client:
        yield client


@pytest.fixture
def bob(server: ServerProcess, client_keys: dict[str, str]) -> Iterator[httpx.Client]:
    with caller(server, client_keys["bob"]) as client:
        yield client
