"""/v1/jobs: work that survives a restart."""

from __future__ import annotations

import asyncio
import shutil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from callreel import clock
from callreel.jobs import store as jobs
from callreel.offline.options import TranscribeOptions
from callreel.server.forms import described
from callreel.server.nouns import job_noun, json_page
from callreel.server.services import Client, House
from callreel.server.uploads import received
from callreel.storage.files import adopt
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.tasks import transcribe

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class TranscribeRequest(BaseModel):
    """What a job may be told, beside its file."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = Field(None, description="ISO 639-1 code; detected if not given")
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = Field("", description="Text that steers spelling and style")
    hotwords: str = Field("", description="Words to expect")
    priority: Literal["high", "normal", "low"] = "normal"


@router.post(
    "", status_code=202, openapi_extra=described(TranscribeRequest, file="Audio or video, any that FFmpeg reads")
)
async def create(house: House, client: Client, request: Request) -> dict[str, Any]:
    """Transcribe a file: the answer is a job, whose call will hold the transcript."""
    async with received(house, request) as form:
        asked, upload = form.parsed(TranscribeRequest), form.file()
        options = TranscribeOptions(
            language=asked.language, task=asked.task, prompt=asked.prompt, hotwords=asked.hotwords
        )
        params = transcribe.Params(options, sha256=upload.sha256)
        call_id = clock.new_id()
        source = house.folder.source_of(call_id)

        def submit(conn: Connection) -> jobs.Job:
            job, _ = transcribe.submit(
                conn, client_id=client, call_id=call_id, title=upload.title, params=params, priority=asked.priority
            )
            return job

        try:
            await asyncio.to_thread(adopt, upload.path, source)
            job = await house.database.write(submit)
        except BaseException:
            shutil.rmtree(source.parent, ignore_errors=True)
            raise
    house.runner.wake()
    return job_noun(job)


@router.get("")
async def list_jobs(
    house: House,
    client: Client,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"] | None = None,
) -> Response:
    """Your jobs, newest first."""

    def read(conn: Connection) -> Response:
        page = jobs.list_page(conn, client, cursor, limit, state)
        return json_page(page, [job_noun(job) for job in page.data])

    return await house.database.read(read)


@router.get("/{job_id}")
async def get(house: House, client: Client, job_id: str) -> dict[str, Any]:
    """One job: its state and progress, then its result or its error."""
    return job_noun(await house.database.read(lambda conn: jobs.get(conn, job_id, client)))


@router.post("/{job_id}/cancel")
async def cancel(house: House, client: Client, job_id: str) -> dict[str, Any]:
    """Stop the job, wherever it is. Cancelling twice is harmless; a finished job is a conflict."""

    job = await house.database.write(lambda conn: transcribe.cancel(conn, job_id, client))
    house.runner.cancelled(job)
    return job_noun(job)
