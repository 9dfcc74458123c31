"""/v1/audio: OpenAI's audio endpoints. A job of high priority behind a synchronous face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from callreel.errors import CallreelError
from callreel.server import sse
from callreel.server.answers import openai_body
from callreel.server.forms import described
from callreel.server.intake import Order, require_room
from callreel.server.openai.answers import Deltas, answer
from callreel.server.openai.asked import AudioRequest, TranscriptionRequest, TranslationRequest
from callreel.server.services import Client, House, Services
from callreel.server.uploads import received
from callreel.server.waiting import News, Waiting, unless_hung_up
from callreel.tasks import transcribe

router = APIRouter(prefix="/v1/audio", tags=["OpenAI"])

R = TypeVar("R", bound=AudioRequest)

FILE = "Audio or video, any that FFmpeg reads"


@router.post("/transcriptions", response_class=Response, openapi_extra=described(TranscriptionRequest, file=FILE))
async def transcriptions(house: House, client: Client, request: Request) -> Response:
    """Transcribe a file and wait for it. Its call is kept only with store=true; who hangs up cancels it."""
    asked, waiting = await _begin(house, client, request, TranscriptionRequest)
    return await (_streamed(request, asked, waiting) if asked.stream else _answered(request, asked, waiting))


@router.post("/translations", response_class=Response, openapi_extra=described(TranslationRequest, file=FILE))
async def translations(house: House, client: Client, request: Request) -> Response:
    """As transcriptions, in English whatever is spoken."""
    asked, waiting = await _begin(house, client, request, TranslationRequest)
    return await _answered(request, asked, waiting)


async def _begin(house: Services, client: str, request: Request, model: type[R]) -> tuple[R, Waiting]:
    await require_room(house, client)
    async with received(house, request) as form:
        asked, upload = form.parsed(model), form.file()
        params = transcribe.Params(
            asked.options(house), asked.engine, asked.model_asked, sha256=upload.sha256, kept=asked.store
        )
        return asked, await Waiting.begin(house, Order(client, params, upload, upload.title))


async def _answered(request: Request, asked: AudioRequest, waiting: Waiting) -> Response:
    async with waiting:
        done = await unless_hung_up(request, waiting.result())
        return await asyncio.to_thread(answer, asked, done)  # a long call's subtitles take a second


async def _streamed(request: Request, asked: TranscriptionRequest, waiting: Waiting) -> Response:
    """The answer begins with the first text, so that what fails before it has its status."""
    news = waiting.news()
    try:
        first = await unless_hung_up(request, _first_said(news))
    except BaseException:
        await waiting.leave()
        raise
    return sse.EventStream(_frames(asked, waiting, first, news), waiting.leave)


async def _first_said(news: AsyncGenerator[News]) -> News | None:
    async for one in news:
        if one.segments:
            return one
    return None


async def _frames(
    asked: TranscriptionRequest, waiting: Waiting, first: News | None, news: AsyncGenerator[News]
) -> AsyncGenerator[str]:
    deltas = Deltas(asked)
    try:
        if first is not None:
            for frame in deltas.of(first.segments):
                yield frame
        async for one in news:
            for frame in deltas.of(one.segments):
                yield frame
        assert waiting.done is not None
        for frame in deltas.end(waiting.done):
            yield frame
    except CallreelError as error:
        yield sse.data_only({"error": openai_body(error)})
