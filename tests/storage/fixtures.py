"""A real database for the tests of every room that keeps something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from callreel.accounts.keys import create_client
from callreel.storage import sqlite
from callreel.storage.database import Database
from callreel.storage.migrate import migrate


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    """A connection inside one transaction of a fresh database, as a work gets it."""
    path = tmp_path / "callreel.db"
    with sqlite.connect(path, sqlite.MIGRATOR) as connection, connection.begin():
        migrate(connection)
    with sqlite.connect(path, sqlite.WRITER) as connection, connection.begin():
        yield connection


@pytest.fixture
def client_id(conn: Connection) -> str:
    return create_client(conn, "owner", "user")[0]


@pytest.fixture
def other_client_id(conn: Connection) -> str:
    return create_client(conn, "stranger", "user")[0]
