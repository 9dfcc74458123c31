from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from callreel.errors import OutOfSpace, StorageUnavailable
from callreel.storage import writer
from callreel.storage.database import Database
from callreel.storage.writer import GroupWriter
from tests.storage.works import Gate, add, limit_pages, names


def test_what_waits_together_is_committed_together(database: Database) -> None:
    commits: list[Connection] = []
    count = commits.append
    event.listen(Engine, "commit", count)
    try:
        with Gate() as gate:
            database.submit(gate.work)
            gate.wait_entered()
            waiting = [database.submit(lambda conn, i=i: add(f"client {i}", conn)) for i in range(50)]
        assert [future.result() for future in waiting] == [f"client {i}" for i in range(50)]
    finally:
        event.remove(Engine, "commit", count)
    assert len(commits) == 2


def test_a_group_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GROUP_LIMIT", 20)
    sizes: list[int] = []
    write = GroupWriter._write
    monkeypatch.setattr(GroupWriter, "_write", lambda self, group: (sizes.append(len(group)), write(self, group))[1])
    with Gate() as gate:
        database.submit(gate.work)
        gate.wait_entered()
        waiting = [database.submit(lambda conn, i=i: add(f"client {i}", conn)) for i in range(50)]
    for future in waiting:
        future.result()
    assert sizes == [1, 20, 20, 10]


def test_a_failing_work_rolls_back_alone(database: Database) -> None:
    def fails(conn: Connection) -> None:
        add("half", conn)
        raise LookupError("on purpose")

    with Gate() as gate:
        database.submit(gate.work)
        gate.wait_entered()
        before = database.submit(lambda conn: add("before", conn))
        failing = database.submit(fails)
        after = database.submit(lambda conn: add("after", conn))
    with pytest.raises(LookupError, match="on purpose"):
        failing.result()
    assert (before.result(), after.result()) == ("before", "after")
    assert asyncio.run(database.read(names)) == {"before", "after"}


def test_no_future_is_resolved_before_the_commit(database: Database) -> None:
    with Gate() as gate:
        first = database.submit(lambda conn: add("first", conn))
        first.result()
        blocked = database.submit(gate.work)
        gate.wait_entered()
        assert not blocked.done()
        assert asyncio.run(database.read(names)) == {"first"}  # WAL: a reader does not wait for the writer


def test_a_write_holds_the_lock_from_its_beginning(database: Database, tmp_path: Path) -> None:
    """BEGIN IMMEDIATE is real: a work that has not yet done anything already keeps others from writing."""
    outsider = sqlite3.connect(tmp_path / "callreel.db", timeout=0, isolation_level=None)
    with Gate() as gate:
        database.submit(gate.work)
        gate.wait_entered()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            outsider.execute("BEGIN IMMEDIATE")
    outsider.close()


def test_a_failed_begin_fails_the_group_and_passes(database: Database, tmp_path: Path) -> None:
    database.submit(lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout = 1").all()).result()
    outsider = sqlite3.connect(tmp_path / "callreel.db", isolation_level=None)
    outsider.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable) as fault:
        database.submit(lambda conn: add("a", conn)).result()
    assert "locked" in fault.value.detail["cause"]
    assert isinstance(fault.value.__cause__, OperationalError)
    outsider.close()
    assert database.submit(lambda conn: add("a", conn)).result() == "a"


def test_a_failed_commit_fails_the_group_and_passes(database: Database) -> None:
    def orphan(conn: Connection) -> None:
        conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # checked by COMMIT, which then fails
        conn.exec_driver_sql("INSERT INTO track (id, call_id, name) VALUES ('t', 'no such call', 'left')")

    with Gate() as gate:
        database.submit(gate.work)
        gate.wait_entered()
        futures = [database.submit(lambda conn: add("innocent", conn)), database.submit(orphan)]
    for future in futures:
        with pytest.raises(StorageUnavailable) as fault:
            future.result()
        assert "FOREIGN KEY" in fault.value.detail["cause"]
    assert database.submit(lambda conn: add("next", conn)).result() == "next"
    assert asyncio.run(database.read(names)) == {"next"}


def test_a_full_disk_is_out_of_space_until_there_is_room(database: Database) -> None:
    database.submit(lambda conn: limit_pages(8, conn)).result()
    stored: list[str] = []
    with pytest.raises(OutOfSpace) as fault:
        for i in range(1000):
            stored.append(database.submit(lambda conn, i=i: add(f"{i:04}" * 500, conn)).result())
    assert "full" in fault.value.detail["cause"]
    assert asyncio.run(database.read(names)) == set(stored)

    database.submit(lambda conn: limit_pages(1000, conn)).result()
    assert database.submit(lambda conn: add("room again", conn)).result() == "room again"
    assert asyncio.run(database.read(names)) == {*stored, "room again"}


def test_when_sqlite_ends_the_transaction_itself_nobody_is_told_success(database: Database) -> None:
    """On some faults SQLite rolls everything back by itself: then the savepoints before are gone too."""

    def breaks(conn: Connection) -> None:
        conn.exec_driver_sql("ROLLBACK")
        raise LookupError("what SQLite said")

    with Gate() as gate:
        database.submit(gate.work)
        gate.wait_entered()
        futures = [
            database.submit(lambda conn: add("before", conn)),
            database.submit(breaks),
            database.submit(lambda conn: add("after", conn)),
        ]
    for future in futures:
        with pytest.raises(StorageUnavailable) as fault:
            future.result()
        assert fault.value.detail["cause"] == "what SQLite said"
    assert database.submit(lambda conn: add("next", conn)).result() == "next"
    assert asyncio.run(database.read(names)) == {"next"}


def test_a_cancelled_work_that_has_not_started_never_runs(database: Database) -> None:
    with Gate() as gate:
        database.submit(gate.work)
        gate.wait_entered()
        future = database.submit(lambda conn: add("cancelled", conn))
        assert future.cancel()
    database.submit(lambda conn: None).result()
    assert asyncio.run(database.read(names)) == set()
