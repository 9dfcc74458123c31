"""/v1/jobs: work that survives a restart."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from sqlalchemy import Connection

from callreel import clock
from callreel.jobs import store as jobs
from callreel.offline.pipeline import TranscribeOptions
from callreel.server.nouns import job_noun, page_noun
from callreel.server.services import Client, House
from callreel.storage.files import keep
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.tasks import transcribe

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("", status_code=202)
async def create(
    house: House,
    client: Client,
    file: Annotated[UploadFile, File(description="Audio or video, any format that FFmpeg reads")],
    language: Annotated[str | None, Form(description="ISO 639-1 code; detected if not given")] = None,
    task: Annotated[Literal["transcribe", "translate"], Form()] = "transcribe",
    prompt: Annotated[str, Form(description="Text that steers spelling and style")] = "",
    hotwords: Annotated[str, Form(description="Words to expect")] = "",
    priority: Annotated[Literal["high", "normal", "low"], Form()] = "normal",
) -> dict[str, Any]:
    """Transcribe a file: the answer is a job, whose call will hold the transcript."""
    call_id = clock.new_id()
    source = house.folder.source_of(call_id)
    await asyncio.to_thread(keep, file.file, source, limit_bytes=house.settings.max_file_size)
    options = TranscribeOptions(language or None, task, prompt, hotwords)
    title = Path(file.filename or "").name

    def submit(conn: Connection) -> jobs.Job:
        return transcribe.submit(
            conn, client_id=client, call_id=call_id, title=title, options=options, priority=priority
        )

    try:
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
) -> dict[str, Any]:
    """Your jobs, newest first."""
    page = await house.database.read(lambda conn: jobs.list_page(conn, client, cursor, limit, state))
    return page_noun(page, [job_noun(job) for job in page.data])


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
