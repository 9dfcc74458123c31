"""/v1/jobs: work that survives a restart."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import Connection

from callreel import clock, net
from callreel.errors import InvalidInput
from callreel.jobs import speed
from callreel.jobs import store as jobs
from callreel.offline.options import TranscribeOptions
from callreel.server import sse
from callreel.server.forgetting import forget_job
from callreel.server.forms import Form, Upload, described, problem
from callreel.server.intake import Order, require_room, submit
from callreel.server.nouns import job_noun, json_page
from callreel.server.services import Client, House, Services
from callreel.server.tail import last_lines
from callreel.server.uploads import received, title_of
from callreel.server.wishes import Languages, SomeLanguage, Temperature, Text, Texts, checked, hotwords
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.tasks import transcribe
from callreel.transcripts.nouns import segment_noun

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Key = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="The same request under the same key makes its job once"),
]


def _object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


Labels = Annotated[
    dict[str, str],
    BeforeValidator(_object, json_schema_input_type=str),
    Field(description="A JSON object of your own notes, to find the call by"),
]


class TranscribeRequest(BaseModel):
    """What a job may be told, beside its file."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(None, max_length=4096, description="Instead of a file: http(s), fetched by the job")
    title: str | None = Field(None, max_length=1000, description="Of the call; the file's name if not given")
    engine: str | None = Field(
        None, max_length=200, description="auto, whisper, pocketsphinx, openai; the server's own"
    )
    model: str | None = Field(None, max_length=200, description="A model's name, or a hub repository id")
    language: SomeLanguage = Field(
        None, description="Code or English name; auto, or not given: heard from the recording"
    )
    languages: Languages = Field([], description="Those it can be, if it is to be heard", max_length=100)
    task: Literal["transcribe", "translate"] = Field("transcribe", description="translate writes English")
    prompt: Text = Field("", description="Text that steers spelling and style")
    hotwords: Texts = Field([], description="Words to expect")
    keywords: Texts = Field([], description="The same, by OpenAI's name")
    profile: Literal["fast", "balanced", "accurate"] | None = Field(None, description="Quality; the server's own")
    channels: Literal["mix", "split"] = Field("mix", description="split: each channel is a track with its speaker")
    speakers: Texts = Field([], description="Who is on the channels, in order", max_length=64)
    word_times: bool = Field(True, description="Without them segments carry no words, and it is quicker")
    temperature: Temperature = Field(0.0, description="Above 0 it samples, which no two runs do alike")
    priority: Literal["high", "normal", "low"] = "normal"
    labels: Labels = Field({})

    def options(self, house: Services) -> TranscribeOptions:
        """Raises InvalidInput."""
        return checked(
            TranscribeOptions(
                language=self.language,
                languages=tuple(self.languages),
                task=self.task,
                prompt=self.prompt,
                hotwords=hotwords(self.hotwords, self.keywords),
                profile=self.profile or house.settings.final.profile,
                channels=self.channels,
                speakers=tuple(self.speakers),
                word_times=self.word_times,
                temperature=self.temperature,
            )
        )


@router.post(
    "",
    status_code=202,
    openapi_extra=described(TranscribeRequest, optional=("file",), file="Audio or video, any that FFmpeg reads"),
    responses={200: {"description": "The job that this Idempotency-Key made before"}},
)
async def create(
    house: House, client: Client, request: Request, response: Response, idempotency_key: Key = None
) -> dict[str, Any]:
    """Transcribe a file, or what lies behind a `url`: the answer is a job, whose call will hold the transcript."""
    await require_room(house, client, idempotency_key)
    async with received(house, request) as form:
        asked = form.parsed(TranscribeRequest)
        upload, url = _source(form, asked, house)
        params = transcribe.Params(
            asked.options(house), asked.engine, asked.model, sha256=upload.sha256 if upload else None, url=url
        )
        order = Order(
            client,
            params,
            upload,
            title=title_of((asked.title or "").encode()) or _title(upload, url),
            priority=asked.priority,
            labels=asked.labels,
            idempotency_key=idempotency_key,
        )
        job, new = await submit(house, order)
    response.status_code = 202 if new else 200
    return job_noun(job)


def _source(form: Form, asked: TranscribeRequest, house: Services) -> tuple[Upload | None, str | None]:
    """The file or the URL. Raises InvalidInput unless there is one of them."""
    if asked.url is None:
        return form.file(), None
    if form.files:
        said = "There is a file as well"
        raise InvalidInput("A job has a file or a url, not both", hint="Send one of them", **problem("url", said))
    return None, str(net.check_url(asked.url, house.settings.sources.allow_networks))


def _title(upload: Upload | None, url: str | None) -> str:
    if upload is not None:
        return upload.title
    parts = urlsplit(url or "")
    return title_of(unquote(parts.path).rstrip("/").encode()) or parts.hostname or ""


@router.get("")
async def list_jobs(
    house: House,
    client: Client,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    state: jobs.State | None = None,
    kind: str | None = None,
    call_id: str | None = None,
) -> Response:
    """Your jobs, newest first."""

    def read(conn: Connection) -> Response:
        page = jobs.list_page(conn, client, cursor, limit, state, kind, call_id)
        return json_page(page, [job_noun(job) for job in page.data])

    return await house.database.read(read)


@router.get("/{job_id}")
async def get(house: House, client: Client, job_id: str) -> dict[str, Any]:
    """One job: its state and progress, then its result or its error; a queued one says how many are `ahead` of it."""
    return await house.database.read(lambda conn: _placed(house, conn, jobs.get(conn, job_id, client)))


def _placed(house: Services, conn: Connection, job: jobs.Job) -> dict[str, Any]:
    noun = job_noun(job)
    slots = house.runner.limits.slots.get(job.kind, 1)
    if (place := speed.place(conn, job.id, slots=slots, now=time.time())) is not None:
        noun["place"] = {"ahead": place.ahead, "eta_s": place.eta_s}
    return noun


@router.get("/{job_id}/events", response_class=sse.EventStream, status_code=200, responses=sse.DESCRIBED)
async def events(
    house: House, client: Client, job_id: str, last_event_id: Annotated[int | None, Header()] = None
) -> Response:
    """Server-sent events of one job: its present state, then what happens to it, until it has ended.

    A `job` event has what has changed of the job, a `segments` event what was said and is certain now.
    """
    await house.database.read(lambda conn: jobs.get(conn, job_id, client))
    return sse.EventStream(_event_stream(house, client, job_id, last_event_id))


async def _event_stream(house: Services, client: str, job_id: str, after: int | None) -> AsyncGenerator[str]:
    watched = house.events.subscribe(job_id, after)
    house.watchers.add(watched)
    try:
        if not watched.replayed:
            noun = await house.database.read(lambda conn: _placed(house, conn, jobs.get(conn, job_id, client)))
            yield sse.event("job", noun, at=clock.now(), id=watched.position)
            if noun["state"] in jobs.FINISHED:
                return
        async for event in watched:
            if event.type == "segments":
                said = [segment_noun(job_id, segment) for segment in event.data["segments"]]
                yield sse.event(event.type, {"id": job_id, "segments": said}, at=event.at, id=event.id)
                continue
            yield sse.event(event.type, event.data, at=event.at, id=event.id)
            if event.data["state"] in jobs.FINISHED:
                return
    finally:
        house.watchers.discard(watched)
        watched.close()


@router.get("/{job_id}/log", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def log(
    house: House,
    client: Client,
    job_id: str,
    tail: Annotated[int | None, Query(ge=1, le=100_000, description="Only so many of the last lines")] = None,
) -> Response:
    """What the job's processes said, all attempts in one text."""
    await house.database.read(lambda conn: jobs.get(conn, job_id, client))
    text = await asyncio.to_thread(last_lines, house.folder.log_of(job_id), tail)
    return Response(text, media_type="text/plain; charset=utf-8")


@router.post("/{job_id}/cancel")
async def cancel(house: House, client: Client, job_id: str) -> dict[str, Any]:
    """Stop the job, wherever it is. Cancelling twice is harmless; a finished job is a conflict."""
    job = await house.database.write(lambda conn: transcribe.cancel(conn, job_id, client))
    house.runner.cancelled(job)
    return job_noun(job)


@router.delete("/{job_id}", status_code=204)
async def delete(house: House, client: Client, job_id: str) -> None:
    """Forget a job that has ended, and its log. What it made, its call and transcript, stays."""
    await forget_job(house, job_id, client)
