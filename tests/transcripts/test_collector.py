from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Connection

from callreel.accounts.keys import ensure_local_client
from callreel.calls.store import create_call
from callreel.errors import StorageUnavailable
from callreel.storage.database import Database
from callreel.text import Segment
from callreel.transcripts import collector, store
from callreel.transcripts.collector import Collector
from tests.storage.works import Gate, limit_pages
from tests.transcripts.segments import spoken

DEADLINE_S = 20.0


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(bounded())


def new_transcript(conn: Connection) -> str:
    call = create_call(conn, client_id=ensure_local_client(conn), mode="live", state="live")
    return store.create_transcript(conn, call_id=call.id, pass_="live", engine="whisper", model="small").id


async def stored(database: Database, transcript_id: str) -> list[Segment]:
    return await database.read(lambda conn: store.segments(conn, transcript_id))


def numbered(n: int) -> list[Segment]:
    return [spoken(seq=seq, start=float(seq), end=seq + 1.0) for seq in range(n)]


def count_writes(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    writes: list[object] = []
    write = database.write
    monkeypatch.setattr(database, "write", lambda work: (writes.append(work), write(work))[1])
    return writes


def test_what_was_put_is_stored_after_a_flush(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        transcript_id = await database.write(new_transcript)
        writes = count_writes(database, monkeypatch)
        taker = Collector(database)
        for segment in numbered(100):
            taker.put(transcript_id, [segment])
        await taker.flush()
        assert await stored(database, transcript_id) == numbered(100)
        assert len(writes) == 1
        taker.put(transcript_id, [spoken(seq=0, revision=2, text="better")])
        await taker.close()
        assert (await stored(database, transcript_id))[0].text == "better"

    run(scenario)


def test_a_flush_of_one_transcript_waits_for_no_other(database: Database) -> None:
    async def scenario() -> None:
        transcript_id = await database.write(new_transcript)
        taker = Collector(database)
        await taker.flush()
        with Gate() as gate:
            database.submit(gate.work)
            gate.wait_entered()
            taker.put(transcript_id, numbered(1))
            await taker.flush("another")
            assert await stored(database, transcript_id) == []
        await taker.flush(transcript_id)
        assert await stored(database, transcript_id) == numbered(1)

    run(scenario)


def test_a_full_disk_loses_nothing_and_keeps_the_order(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(collector, "GROUP_LIMIT", 5)

    async def scenario() -> None:
        transcript_id = await database.write(new_transcript)
        await database.write(lambda conn: limit_pages(6, conn))
        big = [spoken(seq=seq, start=float(seq), text="word " * 200) for seq in range(200)]
        taker = Collector(database)
        refused = asyncio.Event()
        write = database.write

        async def watched(work: Callable[[Connection], None]) -> None:
            try:
                await write(work)
            except StorageUnavailable:
                refused.set()
                raise

        monkeypatch.setattr(database, "write", watched)
        for segment in big:
            taker.put(transcript_id, [segment])
        await refused.wait()
        kept = await stored(database, transcript_id)
        assert 0 < len(kept) < 200
        assert kept == big[: len(kept)]
        await write(lambda conn: limit_pages(100_000, conn))
        await taker.flush()
        assert await stored(database, transcript_id) == big

    run(scenario)


class Away:
    """A database that is away for its first `times` writes."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def write(self, work: object) -> None:
        self.times -= 1
        if self.times >= 0:
            raise StorageUnavailable(cause="away")


def test_the_wait_between_tries_doubles_up_to_its_most(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def no_sleep(delay_s: float) -> None:
        waits.append(delay_s)

    async def scenario() -> None:
        monkeypatch.setattr(asyncio, "sleep", no_sleep)
        taker = Collector(Away(9))  # type: ignore[arg-type]
        taker.put("t", numbered(1))
        await taker.flush()

    run(scenario)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_segments_of_a_deleted_transcript_are_dropped_alone(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        transcript_id = await database.write(new_transcript)
        taker = Collector(database)
        first, second = numbered(2)
        taker.put(transcript_id, [first])
        taker.put("deleted", numbered(1))
        taker.put(transcript_id, [second])
        await taker.flush()
        assert await stored(database, transcript_id) == [first, second]

    with caplog.at_level(logging.ERROR):
        run(scenario)
    (record,) = caplog.records
    assert "transcript deleted" in record.message


def test_a_partial_is_refused_at_once(database: Database) -> None:
    async def scenario() -> None:
        with pytest.raises(ValueError, match="partial"):
            Collector(database).put("t", [spoken(completed=False)])

    run(scenario)


def test_closed_it_takes_no_more(database: Database) -> None:
    async def scenario() -> None:
        taker = Collector(database)
        await taker.close()
        with pytest.raises(StorageUnavailable, match="closed"):
            taker.put("t", numbered(1))

    run(scenario)


def test_closing_can_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        taker = Collector(Away(10**9))  # type: ignore[arg-type]
        taker.put("t", numbered(1))
        closing = asyncio.create_task(taker.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert taker._storing is not None
        await asyncio.wait([taker._storing])

    run(scenario)
