"""One thread that writes for everyone: what waits together is committed together."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from callreel.errors import StorageUnavailable
from callreel.storage import sqlite

T = TypeVar("T")

CLOSED = "The database is closed: the server is shutting down."
GROUP_LIMIT = 256  # works a transaction; bounds how long the first of them waits for the last


class GroupWriter:
    """Runs works one after another in its own thread: one transaction a group, one savepoint a work.

    One commit (one fsync) serves the whole group. A work that raises is rolled back alone. No future is resolved
    before the commit of its group has returned.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: deque[tuple[Callable[[Connection], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()  # guards _waiting and _closing
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="callreel-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Queue `work`. It neither commits nor rolls back, and may be cancelled until it starts."""
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise StorageUnavailable(CLOSED)
            self._waiting.append((work, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Write what waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            self._write([(work, future) for work, future in group if future.set_running_or_notify_cancel()])

    def _next_group(self) -> list[tuple[Callable[[Connection], Any], Future[Any]]]:
        """Everything that waits, up to the limit; empty only when closing and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_LIMIT))]

    def _write(self, group: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        try:
            with self._connection.begin():
                settle = [self._attempt(work, future) for work, future in group]
        except BaseException as error:
            self._abandon()
            for _, future in group:
                future.set_exception(sqlite.unavailable(error))
        else:
            for resolve in settle:
                resolve()

    def _abandon(self) -> None:
        """End what a failed COMMIT leaves open; if even that fails, the next BEGIN fails, and comes here again."""
        with suppress(sqlite3.Error):
            if sqlite.in_transaction(self._connection):
                sqlite.driver(self._connection).rollback()

    def _attempt(self, work: Callable[[Connection], T], future: Future[T]) -> Callable[[], None]:
        """Run `work` in its savepoint; the answer resolves its future, for after the commit.

        Raises what broke the whole transaction: then what the group did before is gone too.
        """
        savepoint = self._connection.begin_nested()
        try:
            result = work(self._connection)
        except BaseException as error:
            if not sqlite.in_transaction(self._connection):
                raise
            savepoint.rollback()
            return partial(future.set_exception, sqlite.named(error))
        savepoint.commit()
        return partial(future.set_result, result)
