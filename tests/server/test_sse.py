"""Server-sent events: frames as the specification has them, comments in the silence, and an end in any case."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from callreel.server import sse

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


class Watcher:
    """A client of one answer, which hangs up when it is told to."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.closed = 0
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if body := message.get("body"):
            self.got.append(body.decode())
            self.arrived.set()

    async def closing(self) -> None:
        await asyncio.sleep(0)  # it may wait, though the answer is being cancelled
        self.closed += 1


def test_a_frame_is_what_the_specification_says() -> None:
    frame = sse.event("job", {"text": "zwölf\nUhr"}, at="now", id=7)
    head, name, data, *end = frame.split("\n")
    assert (head, name, end) == ("id: 7", "event: job", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "job",
        "id": 7,
        "at": "now",
        "data": {"text": "zwölf\nUhr"},
    }
    assert not sse.event("job", {}, at="now").startswith("id")


def test_silence_is_filled_and_the_end_is_the_end() -> None:
    async def run() -> Watcher:
        watcher, more = Watcher(), asyncio.Event()

        async def frames() -> AsyncGenerator[str]:
            yield "one"
            await more.wait()
            yield "two"

        answering = asyncio.create_task(
            sse.EventStream(frames(), watcher.closing, keep_alive_s=0.001)(SCOPE, watcher.receive, watcher.send)
        )
        while sse.COMMENT not in watcher.got:
            await watcher.arrived.wait()
            watcher.arrived.clear()
        more.set()
        await answering
        return watcher

    watcher = asyncio.run(run())
    assert [one for one in watcher.got if one != sse.COMMENT] == ["one", "two"] and watcher.closed == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_who_hangs_up_ends_it(at_once: bool) -> None:
    async def run() -> tuple[Watcher, list[str]]:
        watcher, ended = Watcher(), []

        async def frames() -> AsyncGenerator[str]:
            try:
                yield "one"
                await asyncio.Event().wait()
            finally:
                ended.append("frames")

        if at_once:
            watcher.gone.set()
        answering = asyncio.create_task(
            sse.EventStream(frames(), watcher.closing)(SCOPE, watcher.receive, watcher.send)
        )
        if not at_once:
            await watcher.arrived.wait()
            watcher.gone.set()
        await answering
        return watcher, ended

    watcher, ended = asyncio.run(run())
    assert watcher.closed == 1 and (ended == ["frames"] or at_once)


def test_a_fault_of_the_frames_is_not_hidden() -> None:
    async def run(watcher: Watcher) -> None:
        async def frames() -> AsyncGenerator[str]:
            yield "one"
            raise ZeroDivisionError

        await sse.EventStream(frames(), watcher.closing)(SCOPE, watcher.receive, watcher.send)

    async def started() -> Watcher:
        watcher = Watcher()
        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            await run(watcher)
        return watcher

    assert asyncio.run(started()).closed == 1
