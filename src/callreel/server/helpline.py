"""Jobs in the words of the helpline AI service, for its users' clients.

Its steps after the transcription (translation, entities, classification, scores, summary, insights) are not sent while
nothing here does them; who asks for one is told so in `warnings`.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from callreel import clock
from callreel.calls import store as calls
from callreel.errors import CallreelError, NotFound
from callreel.jobs import speed
from callreel.jobs import store as jobs
from callreel.offline.options import TranscribeOptions
from callreel.server import sse
from callreel.server.services import Services
from callreel.server.waiting import Waiting
from callreel.server.wishes import SomeLanguage
from callreel.tasks import transcribe
from callreel.text import text_of
from callreel.transcripts import store as transcripts

STATUS = {"queued": "queued", "running": "processing", "succeeded": "completed"}  # all else is failed
STARTED, HEARD, WRITTEN, COMPLETED = 5, 10, 30, 100  # percent, as its clients expect them of each step
NOT_DONE = "Only the transcription is done here: no translation, entities, classification, summary, scores or insights."
ABOUT_S = 5  # an estimate is rounded up to such steps


class ProcessRequest(BaseModel):
    """What comes beside the file."""

    model_config = ConfigDict(extra="forbid")

    language: SomeLanguage = Field(None, description="A code; heard from the recording if it is auto or not given")
    include_translation: bool = Field(True, description="Not done yet; the result says so")
    include_insights: bool = Field(True, description="Not done yet; the result says so")
    background: bool = Field(True, description="Answer at once with a task to ask for, or when all is done")

    def options(self, house: Services) -> TranscribeOptions:
        return TranscribeOptions(language=self.language, profile=house.settings.final.profile)


def queued(house: Services, conn: Connection, job: jobs.Job) -> dict[str, Any]:
    """The answer to who does not wait."""
    slots = house.runner.limits.slots[transcribe.KIND]
    place = speed.place(conn, job.id, slots=slots, now=time.time())
    wait_s = (place.eta_s if place else 0.0) + speed.wall_s(conn, transcribe.KIND)
    about_s = ABOUT_S * math.ceil(wait_s / ABOUT_S)
    return {
        "task_id": job.id,
        "status": "queued",
        "message": f"Audio processing started. Check status at /audio/task/{job.id}",
        "estimated_time": f"{about_s} seconds",
        "status_endpoint": f"/audio/task/{job.id}",
    }


def task(conn: Connection, job: jobs.Job) -> dict[str, Any]:
    """A job as a task, with its result where it has one."""
    status = STATUS.get(job.state, "failed")
    error = job.error["message"] if job.error and job.state == "failed" else None
    return {
        "task_id": job.id,
        "status": status,
        "progress": COMPLETED if status == "completed" else job.progress.get("percent", 0),
        "current_step": _step(job) if status == "processing" else None,
        "result": _result(conn, job) if status == "completed" else None,
        "error": "It was cancelled" if job.state == "cancelled" else error,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.finished_at,
    }


def active(conn: Connection, client_id: str, limit: int) -> dict[str, Any]:
    """The tasks of a client that have not ended, those at work first."""
    states: tuple[jobs.State, ...] = ("running", "queued")
    found = [job for state in states for job in jobs.list_page(conn, client_id, limit=limit, state=state).data]
    tasks = [task(conn, job) for job in found if job.kind == transcribe.KIND][:limit]
    waiting = sum(one["status"] == "queued" for one in tasks)
    return {"status": "success", "active_tasks": tasks, "total_active": len(tasks), "queue_length": waiting}


def queue(house: Services, conn: Connection) -> dict[str, Any]:
    """The queue of the whole server."""
    counts = speed.counts(conn)
    running, waiting = (counts.get((transcribe.KIND, state), 0) for state in ("running", "queued"))
    return {
        "status": "healthy" if waiting < house.settings.jobs.queue_limit else "full",
        "workers": house.runner.limits.slots[transcribe.KIND],
        "worker_info": workers(house, conn)["workers"],
        "queue_stats": {
            "active_tasks": running,
            "scheduled_tasks": 0,
            "reserved_tasks": waiting,
            "total_pending": running + waiting,
        },
        "queue_limit": house.settings.jobs.queue_limit,
        "average_processing_time": round(speed.wall_s(conn, transcribe.KIND), 1),
    }


def workers(house: Services, conn: Connection) -> dict[str, Any]:
    """What runs jobs: as many at once of each kind as it has slots."""
    counts = speed.counts(conn)
    found = [
        {
            "name": f"{kind}@callreel",
            "status": "online",
            "max_concurrency": slots,
            "current_load": counts.get((kind, "running"), 0),
            "total_tasks": {kind: sum(n for (of, state), n in counts.items() if of == kind and state in jobs.FINISHED)},
        }
        for kind, slots in house.runner.limits.slots.items()
    ]
    return {"status": "healthy", "total_workers": len(found), "workers": found}


async def frames(house: Services, waiting: Waiting) -> AsyncGenerator[str]:
    """What happens to a task as server-sent events, up to its end; each new text once, all of it in the result."""
    task_id = waiting.job.id

    def frame(step: str, progress: float, message: str, **more: Any) -> str:
        head = {"task_id": task_id, "step": step, "progress": round(progress), "timestamp": clock.now()}
        return sse.data_only({**head, "message": message, **more})

    yield frame("started", STARTED, "Audio processing started")
    progress, n = float(HEARD), 0
    try:
        async for news in waiting.news():
            if news.progress is not None:
                progress = HEARD + (WRITTEN - HEARD) * news.progress["percent"] / 100
                yield frame(
                    "transcription", progress, f"Transcription: {news.progress['step']}", metadata=news.progress
                )
            if news.segments:
                chunk, n = " ".join(segment.text for segment in news.segments), n + 1
                partial = {"transcript_chunk": chunk, "chunk_index": n}
                yield frame("transcription", progress, "Transcription: new text", partial_result=partial)
        done = await house.database.read(lambda conn: task(conn, jobs.get(conn, task_id)))
        yield frame("completed", COMPLETED, "Audio processing completed", result=done["result"])
    except CallreelError as error:
        yield frame("failed", progress, f"{error} {error.hint}".strip(), error=error.code)


def _step(job: jobs.Job) -> str:
    return str(job.progress.get("step", "started"))


def _result(conn: Connection, job: jobs.Job) -> dict[str, Any] | None:
    """None for a call that was deleted."""
    try:
        call = calls.get_call(conn, job.call_id or "", job.client_id)
    except NotFound:
        return None
    current = transcripts.current_transcript(conn, call.id)
    assert current is not None
    segments = transcripts.segments(conn, current.id)
    took_s = job.usage["wall_s"] if job.usage else 0.0
    return {
        "audio_info": {
            "filename": call.title,
            "duration": call.duration_s,
            "language_detected": current.language,
            "processing_time": took_s,
        },
        "call_id": call.id,
        "transcript": text_of(segments),
        "segments": [{"start": s.start, "end": s.end, "text": s.text, "speaker": s.speaker} for s in segments],
        "processing_steps": {
            "transcription": {
                "status": "completed",
                "duration": took_s,
                "engine": current.engine,
                "model": current.model,
            }
        },
        "warnings": [*current.warnings, NOT_DONE],
    }
