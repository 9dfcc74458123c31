"""The embedded database: one folder, one process, one thread that writes and a few that read."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import LifoQueue
from typing import TypeVar

from sqlalchemy import Connection

from callreel.errors import DataFolderInUse, StorageUnavailable
from callreel.storage import sqlite
from callreel.storage.migrate import migrate
from callreel.storage.writer import CLOSED, GroupWriter

T = TypeVar("T")

READERS = 4  # so that a long read, such as the transcript of hours, holds up nobody's short ones


class Database:
    """SQLite in one data folder. A work is a function of a Connection: it queries, and never commits.

    A write that was acknowledged is on the disk; a read that starts afterwards sees it.
    """

    def __init__(self, writer: Connection, readers: Sequence[Connection], held: ExitStack) -> None:
        self._writer = GroupWriter(writer)
        self._idle = LifoQueue[Connection]()  # readers; the one used last has its pages in memory
        for reader in readers:
            self._idle.put(reader)
        self._reading = ThreadPoolExecutor(len(readers), thread_name_prefix="callreel-reader")
        self._held = held  # the connections and the lock of the folder

    @classmethod
    def open(cls, data_folder: Path) -> Database:
        """Take the folder, made where it is missing, for this process, and bring its database up to date.

        Raises DataFolderInUse while another process holds it, StorageUnavailable when it cannot be written or a
        newer Callreel wrote it.
        """
        path = data_folder / "callreel.db"
        with ExitStack() as opening, sqlite.named_faults():
            opening.enter_context(_locked(data_folder))
            with sqlite.connect(path, sqlite.MIGRATOR) as connection, connection.begin():
                migrate(connection)
            writer = opening.enter_context(sqlite.connect(path, sqlite.WRITER))
            readers = [opening.enter_context(sqlite.connect(path, sqlite.READER)) for _ in range(READERS)]
            return cls(writer, readers, opening.pop_all())

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Queue `work` for the writer thread, from any thread.

        The future holds what it returns once that is committed, or what it raised, alone rolled back; it raises
        StorageUnavailable when the database could not begin or commit, and then nothing was written.
        """
        return self._writer.submit(work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """`submit`, awaited. Cancelling the wait cancels a work that has not started, and no other."""
        return await asyncio.wrap_future(self.submit(work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a reader's thread on one snapshot of the database; it cannot write."""
        try:
            future = self._reading.submit(self._read, work)
        except RuntimeError:  # the one refusal of an executor: it was shut down
            raise StorageUnavailable(CLOSED) from None
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish what was submitted, close the files, let go of the folder."""
        self._writer.close()
        self._reading.shutdown()
        self._held.close()

    def _read(self, work: Callable[[Connection], T]) -> T:
        reader = self._idle.get()
        try:
            with sqlite.named_faults(), reader.begin():
                return work(reader)
        finally:
            self._idle.put(reader)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process. The kernel lets go of the lock with the process, however it ends."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / "callreel.lock").open("a")
    except OSError as error:
        raise StorageUnavailable(folder=str(folder), cause=str(error)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderInUse(folder=str(folder)) from None
        yield
