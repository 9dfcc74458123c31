"""SQLite as Callreel needs it: connections with real transactions, and its faults by our names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import URL, Connection, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from callreel.errors import OutOfSpace, StorageUnavailable

BUSY_TIMEOUT_S = 5.0  # how long a statement waits for a lock that another program holds

# WAL: readers and the writer do not wait for each other. FULL: a commit that returned survives a power cut.
WRITER = {"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "ON"}
MIGRATOR = {"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "OFF"}
READER = {"query_only": "ON"}

# What the disk, the file system or another program did; any other error is a mistake in a statement of ours.
_FAULTS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


def connect(path: Path, pragmas: Mapping[str, str]) -> Connection:
    """One connection to the database at `path`, to be used by one thread at a time; closing it closes the file.

    Its transactions are real: `BEGIN IMMEDIATE` for a writer, so that the lock is taken before the first read,
    `BEGIN` (one snapshot) for a reader. Raises StorageUnavailable.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        # isolation_level None keeps the driver from opening and ending transactions on its own.
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
        json_serializer=lambda value: msgspec.json.encode(value, enc_hook=_plain).decode(),
        json_deserializer=msgspec.json.decode,
    )
    begin = "BEGIN" if pragmas.get("query_only") == "ON" else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _record: Any) -> None:
        for name, value in pragmas.items():
            connection.execute(f"PRAGMA {name} = {value}")

    @event.listens_for(engine, "begin")
    def begin_for_real(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    with named_faults():
        return engine.connect()


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's: engines hand out both, and no segment is to be refused for it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be kept as JSON")


def in_transaction(connection: Connection) -> bool:
    """Whether SQLite itself holds a transaction open: it ends one by itself on a full disk and some I/O errors."""
    return driver(connection).in_transaction


def driver(connection: Connection) -> sqlite3.Connection:
    """The sqlite3 connection below `connection`."""
    below = connection.connection.driver_connection
    assert isinstance(below, sqlite3.Connection)
    return below


def unavailable(error: BaseException) -> StorageUnavailable:
    """A StorageUnavailable (a full disk: OutOfSpace) that `error` is the cause of, in words under `detail["cause"]`."""
    below = error.orig if isinstance(error, DBAPIError) else error
    fault = (OutOfSpace if _primary_code(below) == sqlite3.SQLITE_FULL else StorageUnavailable)(cause=str(below))
    fault.__cause__ = error
    return fault


def named(error: BaseException) -> BaseException:
    """`error`, or StorageUnavailable for what SQLite says about disks and locks."""
    below = error.orig if isinstance(error, DBAPIError) else error
    return unavailable(error) if _primary_code(below) in _FAULTS else error


def _primary_code(error: BaseException | None) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF  # the bits above are the extended code


@contextmanager
def named_faults() -> Iterator[None]:
    """Raise what `named` makes of an error of the database."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise named(error) from error.__cause__
