"""A model that leaves a scarce memory while it is idle, and is back when it is needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Park:
    """Calls `leave` after `after_s` without use, and `come_back` before the next use; never while it is used."""

    def __init__(self, leave: Callable[[], None], come_back: Callable[[], None], *, after_s: float) -> None:
        self._leave, self._come_back, self._after_s = leave, come_back, after_s
        self._changed = threading.Condition()
        self._users = 0
        self._left_at = time.monotonic()  # by the last user
        self.parked = False
        threading.Thread(target=self._watch, name="park", daemon=True).start()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with self._changed:
            if self.parked:
                self._come_back()
                self.parked = False
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._left_at = time.monotonic()
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                self._changed.wait_for(lambda: not self._users and not self.parked)
                remaining_s = self._left_at + self._after_s - time.monotonic()
                if remaining_s > 0:
                    self._changed.wait(remaining_s)
                else:
                    self._leave()
                    self.parked = True
