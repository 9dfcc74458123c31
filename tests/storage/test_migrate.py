from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from callreel.errors import StorageUnavailable
from callreel.storage import sqlite
from callreel.storage.database import Database
from callreel.storage.migrate import migrate
from callreel.storage.tables import metadata


def test_the_migrations_build_the_tables(conn: Connection) -> None:
    assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_migrating_twice_changes_nothing(conn: Connection) -> None:
    migrate(conn)
    assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_all_of_a_migration_happens_or_nothing(tmp_path: Path) -> None:
    with sqlite.connect(tmp_path / "callreel.db", sqlite.MIGRATOR) as conn:
        with conn.begin() as transaction:
            migrate(conn)
            assert inspect(conn).has_table("segment")
            transaction.rollback()
        assert inspect(conn).get_table_names() == []


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    database.submit(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))).result()
    database.close()
    with pytest.raises(StorageUnavailable, match="newer version") as refusal:
        Database.open(tmp_path)
    assert refusal.value.detail["schema"] == "9999"


def test_every_table_compiles_for_postgresql() -> None:
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=postgresql.dialect())).strip().startswith("CREATE TABLE")
