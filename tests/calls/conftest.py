from __future__ import annotations

from tests.storage.fixtures import client_id, conn, database, other_client_id

__all__ = ["client_id", "conn", "database", "other_client_id"]
