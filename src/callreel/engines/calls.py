"""The calls an engine child has in flight, and whether anybody still waits for them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from callreel.engines.frames import is_closed

PATIENCE_S = 1.5  # with the next line: a cancelled job's work has stopped within 2 s
LOOK_EVERY_S = 0.1


class Call:
    """One request, from when it was read until it is answered."""

    __slots__ = ("_connection", "left_at")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.left_at: float | None = None  # when its caller was seen to be gone, monotonic seconds

    def is_wanted(self) -> bool:
        """False once the caller has hung up: then its answer would reach nobody."""
        if self.left_at is None and is_closed(self._connection):
            self.left_at = time.monotonic()
        return self.left_at is None


class Calls:
    """Watches the connections of all calls in flight.

    A decode cannot be interrupted. So when all that run belong to callers who have hung up, and one of them goes on
    for `patience_s`, `give_up` is called: the process ends, and with it work that nobody wants. While a single caller
    is left, nothing is done: his decode would be lost too.
    """

    def __init__(self, give_up: Callable[[], None], *, patience_s: float = PATIENCE_S) -> None:
        self._give_up, self._patience_s = give_up, patience_s
        self._calls: set[Call] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="calls", daemon=True).start()

    @contextmanager
    def running(self, connection: socket.socket) -> Iterator[Call]:
        call = Call(connection)
        with self._changed:
            self._calls.add(call)
            self._changed.notify()
        try:
            yield call
        finally:
            with self._changed:
                self._calls.remove(call)

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls)
                # No call can begin or end while we hold the lock, so what is seen here is still true when we give up.
                wanted = [call for call in self._calls if call.is_wanted()]
                longest = min(call.left_at or time.monotonic() for call in self._calls)
                if not wanted and time.monotonic() - longest >= self._patience_s:
                    self._give_up()
                    return
                self._changed.wait(LOOK_EVERY_S)
