"""How SQLite goes about a query."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection, text

from callreel.errors import CallreelError


def plan(conn: Connection, run: Callable[[], object]) -> str:
    """The plans of each UPDATE, SELECT and DELETE that `run` executes, whatever it finds, a step a line."""
    statements: list[str] = []
    raw = conn.connection.driver_connection
    assert raw is not None
    raw.set_trace_callback(statements.append)
    with suppress(CallreelError):
        run()
    raw.set_trace_callback(None)
    ours = [sql for sql in statements if sql.startswith(("UPDATE", "SELECT", "DELETE"))]
    plans = [
        conn.execute(text(f"EXPLAIN QUERY PLAN {sql}")).scalars("detail")
        for sql in ours
        if "main'." not in sql  # what FTS5 asks of its own tables
    ]
    return "\n".join(step for steps in plans for step in steps)
