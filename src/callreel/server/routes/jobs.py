"""/v1/jobs: work that survives a restart."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, File, Form, Query, UploadFile
from sqlalchemy import Connection

from callreel import clock
from callreel.calls import store as calls
from callreel.errors import InvalidInput
from callreel.jobs import store as jobs
from callreel.offline.pipeline import TRACK, TranscribeOptions
from callreel.server.nouns import job_noun, page_noun
from callreel.server.services import Client, House, too_large
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT
from callreel.tasks import transcribe

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
COPY_BYTES = 1 << 20


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
    await asyncio.to_thread(_keep, file, source, house.settings.max_upload_bytes)
    options = TranscribeOptions(language or None, task, prompt, hotwords)

    def enqueue(conn: Connection) -> jobs.Job:
        title = Path(file.filename or "").name
        calls.create_call(
            conn, client_id=client, title=title, mode="postcall_only", state="processing", call_id=call_id
        )
        calls.add_track(conn, call_id, TRACK)
        return jobs.enqueue(
            conn,
            client_id=client,
            kind=transcribe.KIND,
            params=msgspec.to_builtins(options),
            priority=priority,
            call_id=call_id,
        )

    try:
        job = await house.database.write(enqueue)
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

    def cancel(conn: Connection) -> jobs.Job:
        jobs.get(conn, job_id, client)
        cancelled = jobs.cancel(conn, job_id)
        transcribe.abandon(conn, cancelled)
        return cancelled

    job = await house.database.write(cancel)
    house.runner.cancelled(job)
    return job_noun(job)


def _sync(folder: Path) -> None:
    """Force the names in `folder` to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _keep(upload: UploadFile, target: Path, limit: int) -> None:
    """Copy an upload to where it stays: whole and on the disk, or not at all."""
    target.parent.mkdir(parents=True)
    part = target.with_suffix(".part")
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(upload.file, file, COPY_BYTES)
            if file.tell() > limit:
                raise too_large(limit)
            if file.tell() == 0:
                raise InvalidInput("The file is empty")
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
        for folder in (target.parent, target.parent.parent):
            _sync(folder)
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise
