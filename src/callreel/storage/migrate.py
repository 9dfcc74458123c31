"""Brings a database to the tables this version of Callreel knows."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from callreel.errors import StorageUnavailable

_STEPS = Path(__file__).parent / "migrations"


def migrate(connection: Connection) -> None:
    """Run every step the database has not seen, in the caller's transaction: all of them or none.

    On SQLite foreign keys must be off on `connection`: a step that rebuilds a table would delete the rows under it.
    Raises StorageUnavailable when a newer Callreel wrote this database.
    """
    config = Config()
    config.set_main_option("script_location", str(_STEPS).replace("%", "%%"))
    config.attributes["connection"] = connection
    present = MigrationContext.configure(connection).get_current_revision()
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise StorageUnavailable(
            "A newer version of Callreel wrote this database; run that version, or restore an older backup.",
            schema=present,
            known=max(known),
        )
    command.upgrade(config, "head")
