"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): frames, and answers of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

KEEP_ALIVE_S = 15.0  # proxies close what is silent for longer, most after 60 s
COMMENT = ": still here\n\n"
DESCRIBED: dict[int | str, dict[str, Any]] = {  # of a route, for OpenAPI: what a stream is made of
    200: {"content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}}}
}
DONE = "data: [DONE]\n\n"  # how OpenAI's streams end


def event(type: str, data: dict[str, Any], *, at: str, id: int | None = None) -> str:
    """One of our events, {type, id, at, data}; a client that comes back sends the last `id` that it got."""
    head = "" if id is None else f"id: {id}\n"
    return f"{head}event: {type}\n{data_only({'type': type, 'id': id, 'at': at, 'data': data})}"


def data_only(data: dict[str, Any]) -> str:
    """A frame that is its data alone, as OpenAI's clients read them."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """An answer of frames, with a comment in every silence. `closing` runs when it is over, however it ends.

    A generator's own `finally` would not do: it never runs where the client was gone before the first frame.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[str],
        closing: Callable[[], Awaitable[None]] | None = None,
        *,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        super().__init__(
            _kept_alive(frames, keep_alive_s),
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._frames, self._closing = frames, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._frames.aclose()
            if self._closing is not None:
                await self._closing()


async def _kept_alive(frames: AsyncGenerator[str], every_s: float) -> AsyncGenerator[str]:
    upcoming: asyncio.Future[str] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(frames))
            if not (await asyncio.wait({upcoming}, timeout=every_s))[0]:
                yield COMMENT
                continue
            ready, upcoming = upcoming, None
            try:
                frame = ready.result()
            except StopAsyncIteration:
                return
            yield frame
    finally:
        if upcoming is not None:
            upcoming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await upcoming
