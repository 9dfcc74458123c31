"""A client that waits for its job, over real events and a real database: every way it can go, without an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection
from starlette.requests import ClientDisconnect, Request

from callreel.accounts import keys
from callreel.calls import store as calls
from callreel.errors import CallreelError, Cancelled, EngineCrashed, ServerStops
from callreel.jobs import store as jobs
from callreel.offline.options import TranscribeOptions
from callreel.offline.outcome import SourceTrack, Transcription
from callreel.server.intake import Order
from callreel.server.services import Services
from callreel.server.waiting import Waiting, unless_hung_up
from callreel.storage.database import Database
from callreel.storage.events import QUEUE_EVENTS, EventHub
from callreel.storage.folders import DataFolder
from callreel.tasks import transcribe
from callreel.tasks.messages import Transcribed
from callreel.text import Segment, text_of

SAID = [Segment("mix", n, float(n), n + 1.0, f"word{n}") for n in range(5)]
USAGE = {"wall_s": 1.0, "cpu_s": 1.0, "peak_rss_bytes": 1, "audio_s": 5.0, "rtfx": 5.0}


class House:
    """What waiting needs of a server; its runner does what the test says."""

    def __init__(self, root: Path) -> None:
        self.database = Database.open(root)
        self.folder = DataFolder(root)
        self.folder.create()
        self.events = EventHub()
        self.watchers: set[Any] = set()
        self.cancelled: list[str] = []
        self.settings = SimpleNamespace(
            jobs=SimpleNamespace(queue_limit=50, max_attempts=3, ageing_s=600.0),
        )
        self.runner = SimpleNamespace(
            limits=SimpleNamespace(slots={"transcribe": 1}), wake=lambda: None, cancelled=self._cancelled
        )

        async def check(engine: str | None, model: str | None) -> None: ...

        self.speech = SimpleNamespace(check=check)

    async def order(self, *, kept: bool = False) -> Order:
        client = await self.database.write(keys.ensure_local_client)
        params = transcribe.Params(TranscribeOptions(prompt="secret"), url="http://example.com/a.wav", kept=kept)
        return Order(client, params, None, "a.wav")

    def _cancelled(self, job: jobs.Job) -> None:
        self.cancelled.append(job.id)
        self.tell(job)

    def tell(self, job: jobs.Job, **more: Any) -> None:
        self.events.publish(job.id, "job", {"id": job.id, "state": job.state, **more})

    def say(self, job: jobs.Job, *segments: Segment) -> None:
        self.events.publish(job.id, "segments", {"segments": list(segments)})

    async def end(self, job: jobs.Job, error: CallreelError | None = None) -> None:
        def work(conn: Connection) -> jobs.Job:
            now = time.time()
            claimed = jobs.claim(conn, kinds=["transcribe"], lease_s=30.0, now=now)
            assert claimed is not None and claimed.id == job.id
            if error is not None:
                return jobs.fail(conn, job.id, claimed.attempts, error.as_dict(), retry_at=None)
            found = Transcription(tuple(SAID), "en", 5.0, (SourceTrack("mix"),))
            return transcribe.commit(conn, claimed, Transcribed(found, "whisper", "tiny", USAGE), (), None)

        self.tell(await self.database.write(work))

    async def calls(self) -> list[str]:
        client = await self.database.write(keys.ensure_local_client)
        page = await self.database.read(lambda conn: calls.list_calls(conn, client))
        return [call.id for call in page.data]


def with_house(tmp_path: Path, test: Callable[[House], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        house = House(tmp_path)
        try:
            await test(house)
        finally:
            house.database.close()

    asyncio.run(run())


async def begun(house: House, *, kept: bool = False) -> Waiting:
    return await Waiting.begin(cast(Services, house), await house.order(kept=kept))


async def heard(waiting: Waiting) -> list[Segment]:
    return [segment async for news in waiting.news() for segment in news.segments]


def test_segments_come_once_though_another_attempt_says_them_again(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        waiting = await begun(house)
        house.say(waiting.job, *SAID[:2])
        house.tell(waiting.job)  # queued again
        house.say(waiting.job, *SAID[:3])
        await house.end(waiting.job)
        assert await heard(waiting) == SAID
        assert waiting.done is not None and text_of(waiting.done.segments) == text_of(SAID)
        await waiting.leave()
        job = await house.database.read(lambda conn: jobs.get(conn, waiting.job.id))
        assert (job.state, job.call_id, job.params, job.usage) == ("succeeded", None, {}, USAGE)
        assert await house.calls() == [] and house.cancelled == [] and house.watchers == set()

    with_house(tmp_path, test)


def test_a_kept_call_stays(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with await begun(house, kept=True) as waiting:
            await house.end(waiting.job)
            done = await waiting.result()
        assert await house.calls() == [done.call.id]

    with_house(tmp_path, test)


def test_who_was_too_slow_gets_the_rest_in_order_at_the_end(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with await begun(house) as waiting:
            house.say(waiting.job, SAID[0])
            for n in range(QUEUE_EVENTS):
                house.tell(waiting.job, progress={"percent": n})
            house.say(waiting.job, SAID[2])  # lost
            listening = asyncio.create_task(heard(waiting))
            while waiting._watched.lagged:  # noqa: ASYNC110, nobody announces that it watches anew
                await asyncio.sleep(0)
            house.say(waiting.job, SAID[3])  # heard, but not in its turn
            await house.end(waiting.job)
            assert await listening == SAID

    with_house(tmp_path, test)


def test_who_was_too_slow_even_for_the_end_is_told(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with await begun(house) as waiting:
            for n in range(QUEUE_EVENTS + 1):
                house.tell(waiting.job, progress={"percent": n})
            await house.end(waiting.job)
            assert await heard(waiting) == SAID

    with_house(tmp_path, test)


def test_a_failure_is_raised_as_what_it_was(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with await begun(house, kept=True) as waiting:
            await house.end(waiting.job, EngineCrashed("it fell"))
            with pytest.raises(EngineCrashed, match="it fell"):
                await waiting.result()
        async with await begun(house) as waiting:
            house._cancelled(
                await house.database.write(lambda conn: transcribe.cancel(conn, waiting.job.id, waiting.job.client_id))
            )
            with pytest.raises(Cancelled):
                await waiting.result()

    with_house(tmp_path, test)


@pytest.mark.parametrize("kept", [True, False])
def test_who_leaves_cancels(tmp_path: Path, kept: bool) -> None:
    async def test(house: House) -> None:
        async with await begun(house, kept=kept) as waiting:
            source = house.folder.source_of(str(waiting.job.call_id))
            source.parent.mkdir(parents=True)
            source.write_bytes(b"sound")
        assert house.cancelled == [waiting.job.id] and await house.calls() == []
        assert not source.parent.exists()

    with_house(tmp_path, test)


def test_leaving_goes_on_if_who_leaves_is_cancelled(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        waiting = await begun(house)
        leaving = asyncio.create_task(waiting.leave())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        async with asyncio.timeout(30):
            while await house.calls():  # noqa: ASYNC110, nobody announces the end of what nobody waits for
                await asyncio.sleep(0)
        assert house.cancelled == [waiting.job.id]

    with_house(tmp_path, test)


def test_a_server_that_stops_says_so(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with await begun(house) as waiting:
            for watcher in house.watchers:
                watcher.close()
            with pytest.raises(ServerStops):
                await waiting.result()

    with_house(tmp_path, test)


def test_what_nobody_waits_for_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        orphan, wanted = await begun(house), await begun(house, kept=True)
        gone = await house.database.write(transcribe.forget_unkept)
        assert gone == [orphan.job.call_id] and await house.calls() == [wanted.job.call_id]
        job = await house.database.read(lambda conn: jobs.get(conn, orphan.job.id))
        assert (job.state, job.params) == ("cancelled", {})

    with_house(tmp_path, test)


def test_hanging_up_ends_the_work() -> None:
    async def run() -> None:
        ended: list[str] = []
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> str:
            try:
                gone.set()
                await asyncio.Event().wait()
            finally:
                ended.append("work")
            return ""

        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        with pytest.raises(ClientDisconnect):
            await unless_hung_up(request, work())
        assert ended == ["work"]
        gone.clear()
        assert await unless_hung_up(request, asyncio.sleep(0, "done")) == "done"

    asyncio.run(run())
