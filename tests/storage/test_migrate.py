from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from callreel.errors import StorageUnavailable
from callreel.storage import migrations, sqlite
from callreel.storage.database import Database
from callreel.storage.migrate import migrate
from callreel.storage.tables import metadata


def differences(conn: Connection) -> list[object]:
    """What the database has other than the tables; the full-text index, which only SQLite has, aside."""

    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or not str(name).startswith("transcript_fts")

    return list(compare_metadata(MigrationContext.configure(conn, opts={"include_name": ours}), metadata))


def test_the_migrations_build_the_tables(conn: Connection) -> None:
    assert differences(conn) == []


def test_migrating_twice_changes_nothing(conn: Connection) -> None:
    migrate(conn)
    assert differences(conn) == []


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


def stepped(conn: Connection, to: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = conn
    present = MigrationContext.configure(conn).get_current_revision() or ""
    (command.downgrade if to < present else command.upgrade)(config, to)


def test_what_was_there_before_0002_is_ranked_and_found(tmp_path: Path) -> None:
    at = "2026-01-01T00:00:00.000Z"
    with sqlite.connect(tmp_path / "callreel.db", sqlite.MIGRATOR) as conn, conn.begin():
        stepped(conn, "0001")
        for statement in (
            f"INSERT INTO client VALUES ('o', 'owner', 'user', NULL, '{at}')",
            "INSERT INTO call (id, client_id, title, state, mode, speakers, labels, created_at)"
            f" VALUES ('c', 'o', '', 'done', 'file', '{{}}', '{{}}', '{at}')",
            "INSERT INTO transcript (id, call_id, pass, engine, model, state, current, warnings, created_at)"
            f" VALUES ('t', 'c', 'final', 'whisper', 'tiny', 'done', 1, '[]', '{at}')",
            "INSERT INTO segment VALUES ('t', 'mix', 0, 1, 1, 0, 1, 'Grüße 你好', NULL, NULL, '[]', '{}')",
            *(
                "INSERT INTO job (id, client_id, kind, state, priority, attempts, max_attempts, not_before, params,"
                f" progress, created_at) VALUES ('{p}', 'o', 'x', 'queued', '{p}', 0, 3, 0, '{{}}', '{{}}', '{at}')"
                for p in ("low", "high", "normal")
            ),
        ):
            conn.exec_driver_sql(statement)
        migrate(conn)
        assert differences(conn) == []
        ranks = conn.exec_driver_sql("SELECT id, rank_at FROM job ORDER BY rank_at").all()
        assert ranks == [("high", 1767225600.0), ("normal", 1767226200.0), ("low", 1767227400.0)]
        found = "SELECT count(*) FROM transcript_fts WHERE transcript_fts MATCH ?"
        assert [conn.exec_driver_sql(found, (q,)).scalar_one() for q in ("GRUSSE", "grüße", "好")] == [0, 1, 1]
        stepped(conn, "0001")
        assert "job" in inspect(conn).get_table_names() and "edit" not in inspect(conn).get_table_names()
        migrate(conn)
        assert differences(conn) == []


def test_the_migrations_are_scripts_for_postgresql_too() -> None:
    script = StringIO()
    options = {"as_sql": True, "output_buffer": script, "target_metadata": metadata}
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    steps = ScriptDirectory.from_config(config)
    with EnvironmentContext(config, steps, as_sql=True):  # so that a step knows that it only writes
        context = MigrationContext.configure(dialect_name="postgresql", opts=options)
        with Operations.context(context):
            for step in reversed(list(steps.walk_revisions())):
                step.module.upgrade()
    sql = script.getvalue()
    assert "CREATE UNIQUE INDEX ix_job_client_id_idempotency_key" in sql
    assert "ALTER TABLE job ALTER COLUMN rank_at SET NOT NULL" in sql
    assert "fts5" not in sql


def test_every_table_compiles_for_postgresql() -> None:
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=postgresql.dialect())).strip().startswith("CREATE TABLE")
