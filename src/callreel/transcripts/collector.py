"""The collector: the only writer of segments. It takes them at once and stores them when the database can."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from callreel.errors import StorageUnavailable
from callreel.storage.database import Database
from callreel.text import Segment
from callreel.transcripts import store

log = logging.getLogger(__name__)

GROUP_LIMIT = 256  # puts a write
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 5.0


@dataclass(frozen=True, slots=True)
class _Put:
    transcript_id: str
    segments: tuple[Segment, ...]
    done: asyncio.Future[None]


class Collector:
    """Queues segments and stores them in order, from one asyncio loop.

    While the database is unavailable they wait in memory and are tried again, for ever. Segments that can never be
    stored (their transcript was deleted) are logged and dropped, alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Put] = deque()
        self._storing: asyncio.Task[None] | None = None  # runs while anything waits
        self._closed = False

    def put(self, transcript_id: str, segments: Sequence[Segment]) -> None:
        """Queue completed segments without waiting. Raises ValueError for a partial, StorageUnavailable once closed."""
        if self._closed:
            raise StorageUnavailable("The collector is closed: the server is shutting down.")
        store.require_completed(segments)
        loop = asyncio.get_running_loop()
        self._waiting.append(_Put(transcript_id, tuple(segments), loop.create_future()))
        if self._storing is None or self._storing.done():
            self._storing = loop.create_task(self._store_waiting(), name="collector")

    async def flush(self, transcript_id: str | None = None) -> None:
        """Wait until everything put before this call, for one transcript if given, is stored."""
        ahead = [put.done for put in self._waiting if transcript_id in (None, put.transcript_id)]
        if ahead:
            await asyncio.wait(ahead)

    async def close(self) -> None:
        """Take no more, and store what waits. Cancelled, it gives up what a database that stays away never took."""
        self._closed = True
        try:
            await self.flush()
        finally:
            if self._storing is not None:
                self._storing.cancel()

    async def _store_waiting(self) -> None:
        limit, retry_s = GROUP_LIMIT, RETRY_FIRST_S
        while self._waiting:
            group = [self._waiting[i] for i in range(min(len(self._waiting), limit))]
            try:
                await self._database.write(partial(_put_all, group))
            except StorageUnavailable as error:
                log.warning("segments wait for the database, next try in %.1f s: %s", retry_s, error.detail)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_MOST_S)
                continue
            except Exception:
                if len(group) > 1:
                    limit = 1  # one by one up to the one at fault, so that its neighbours are stored
                    continue
                log.exception("segments of transcript %s can never be stored: dropped", group[0].transcript_id)
                limit = GROUP_LIMIT
            retry_s = RETRY_FIRST_S
            for put in group:
                self._waiting.popleft()
                put.done.set_result(None)


def _put_all(group: Sequence[_Put], conn: Connection) -> None:
    for put in group:
        store.put_segments(conn, put.transcript_id, put.segments)
