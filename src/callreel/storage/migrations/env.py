"""Alembic runs this file: the steps go through the connection that `storage.migrate` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from callreel.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
