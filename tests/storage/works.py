"""Works to give to a database, and a gate that holds its writer while others queue."""

from __future__ import annotations

import threading

from sqlalchemy import Connection, select

from callreel.storage.tables import client

DEADLINE_S = 10.0


def add(name: str, conn: Connection) -> str:
    conn.execute(client.insert().values(name=name, role="user"))
    return name


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(client.c.name)).scalars())


def limit_pages(room: int, conn: Connection) -> None:
    """Let the disk be full once the database has grown by `room` pages."""
    used = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
    conn.exec_driver_sql(f"PRAGMA max_page_count = {used + room}").all()


class Gate:
    """Submit `work`; the writer stays inside it until the `with` block ends."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()

    def work(self, _conn: Connection) -> None:
        self._entered.set()
        assert self._open.wait(DEADLINE_S)

    def wait_entered(self) -> None:
        assert self._entered.wait(DEADLINE_S)
