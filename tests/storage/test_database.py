from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from callreel import clock
from callreel.errors import DataFolderInUse, StorageUnavailable
from callreel.storage import sqlite
from callreel.storage.database import READERS, Database
from tests.storage.works import add, names


def test_a_read_sees_what_was_acknowledged(database: Database) -> None:
    async def scenario() -> None:
        assert await database.write(lambda conn: add("a", conn)) == "a"
        assert await database.read(names) == {"a"}

    asyncio.run(scenario())


def test_a_long_read_holds_up_no_other(database: Database) -> None:
    go_on = threading.Event()

    async def scenario() -> None:
        held = [asyncio.create_task(database.read(lambda conn: go_on.wait(30))) for _ in range(READERS - 1)]
        assert await asyncio.wait_for(database.read(names), 30) == set()
        go_on.set()
        assert await asyncio.gather(*held) == [True] * (READERS - 1)

    asyncio.run(scenario())


def test_the_reader_cannot_write(database: Database) -> None:
    async def scenario() -> None:
        with pytest.raises(StorageUnavailable) as fault:
            await database.read(lambda conn: add("a", conn))
        assert "readonly" in fault.value.detail["cause"]
        assert await database.read(names) == set()

    asyncio.run(scenario())


def test_a_mistake_in_a_statement_keeps_its_name(database: Database) -> None:
    async def scenario() -> None:
        for run in (database.write, database.read):
            with pytest.raises(OperationalError, match="no such table"):
                await run(lambda conn: conn.execute(text("SELECT * FROM nowhere")).all())

    asyncio.run(scenario())


def test_pragmas_hold(database: Database) -> None:
    def pragmas(conn: Connection) -> dict[str, int | str]:
        wanted = ("journal_mode", "synchronous", "foreign_keys", "query_only", "busy_timeout")
        return {name: conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted}

    async def scenario() -> None:
        expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "query_only": 0, "busy_timeout": 5000}
        assert await database.write(pragmas) == expected
        assert (await database.read(pragmas))["query_only"] == 1

    asyncio.run(scenario())


def test_close_writes_what_waits_and_then_refuses(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    futures = [database.submit(lambda conn, i=i: add(f"client {i}", conn)) for i in range(300)]
    database.close()
    assert all(future.done() for future in futures)
    with pytest.raises(StorageUnavailable, match="closed"):
        database.submit(lambda conn: add("late", conn))
    with pytest.raises(StorageUnavailable, match="closed"):
        asyncio.run(database.read(names))
    with sqlite.connect(tmp_path / "callreel.db", sqlite.READER) as conn, conn.begin():
        assert len(names(conn)) == 300


HOLDER = """
import sys
from pathlib import Path
from callreel.storage.database import Database
database = Database.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_and_free_when_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(DataFolderInUse) as refusal:
            Database.open(tmp_path)
        assert refusal.value.detail == {"folder": str(tmp_path)}
        holder.kill()
    Database.open(tmp_path).close()


WRITER = """
import sys
from pathlib import Path
from callreel import clock
from callreel.storage.database import Database
from callreel.storage.tables import client
database = Database.open(Path(sys.argv[1]))
n = 0
while True:
    futures = []
    for n in range(n + 1, n + 51):
        work = lambda conn, n=n: conn.execute(client.insert().values(name=f"{n}", role="user")) and n
        futures.append(database.submit(work))
    for future in futures:
        print(future.result(), flush=True)
"""


def test_kill_in_the_middle_of_writing_keeps_everything_acknowledged(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [next(process.stdout).strip() for _ in range(500)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    database = Database.open(tmp_path)
    try:
        assert asyncio.run(database.read(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar_one())) == "ok"
        assert asyncio.run(database.read(names)) >= set(acknowledged)
    finally:
        database.close()


def test_a_folder_that_cannot_be_made_is_storage_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable) as fault:
        Database.open(tmp_path / "file" / "data")
    assert "file" in fault.value.detail["cause"]


def test_a_file_that_is_no_database_is_storage_unavailable_and_lets_go_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "callreel.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageUnavailable) as fault:
        Database.open(tmp_path)
    assert "not a database" in fault.value.detail["cause"]
    (tmp_path / "callreel.db").unlink()
    Database.open(tmp_path).close()


def test_what_is_stored_outlives_the_process(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "made" / "on the way")
    name = database.submit(lambda conn: add(clock.new_id(), conn)).result()
    database.close()
    again = Database.open(tmp_path / "made" / "on the way")
    assert asyncio.run(again.read(names)) == {name}
    again.close()
