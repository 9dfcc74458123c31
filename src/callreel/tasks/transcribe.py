"""The job kind `transcribe`: a stored file to a final transcript."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from callreel.calls import store as calls
from callreel.engines.remote import RemoteEngine
from callreel.errors import NotFound, UnreadableMedia
from callreel.jobs import store as jobs
from callreel.offline.pipeline import TRACK, TranscribeOptions, transcribe
from callreel.tasks.messages import Progressed, Report, Transcribed, TranscribeOrder
from callreel.transcripts import store as transcripts

KIND = "transcribe"
UNREADABLE_HINT = "Check that the file plays and has sound, and that all of it was sent; then send it again"
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


def submit(
    conn: Connection, *, client_id: str, call_id: str, title: str, options: TranscribeOptions, priority: str
) -> jobs.Job:
    """In the server: a call made from the file that `call_id` keeps already, and the job that writes it down."""
    calls.create_call(conn, client_id=client_id, title=title, mode="postcall_only", state="processing", call_id=call_id)
    calls.add_track(conn, call_id, TRACK)
    params = msgspec.to_builtins(options)
    job, _ = jobs.enqueue(conn, client_id=client_id, kind=KIND, params=params, priority=priority, call_id=call_id)
    return job


def cancel(conn: Connection, job_id: str, client_id: str) -> jobs.Job:
    """In the server: cancel a client's job, and with it its call. Raises NotFound, Conflict for a finished one."""
    jobs.get(conn, job_id, client_id)
    cancelled = jobs.cancel(conn, job_id)
    abandon(conn, cancelled)
    return cancelled


def run(order: TranscribeOrder, report: Callable[[Report], None]) -> Transcribed:
    """In the job child: do the work. Raises what `offline.pipeline.transcribe` raises."""
    began = time.monotonic()
    engine = RemoteEngine(Path(order.engine_socket))
    source, work = Path(order.source), Path(order.work)
    try:
        transcription = transcribe(
            source, engine, order.options, work=work, on_progress=lambda p: report(Progressed(p))
        )
    except UnreadableMedia as error:
        raise UnreadableMedia(str(error), hint=error.hint or UNREADABLE_HINT) from error
    used = resource.getrusage(resource.RUSAGE_SELF)
    wall_s = time.monotonic() - began
    usage = {
        "wall_s": round(wall_s, 3),
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "peak_rss_bytes": used.ru_maxrss * RSS_UNIT,
        "audio_s": transcription.duration_s,
        "rtfx": round(transcription.duration_s / wall_s, 2),
    }
    return Transcribed(transcription, engine.name, engine.model, usage)


def commit(conn: Connection, job: jobs.Job, done: Transcribed, warnings: tuple[str, ...]) -> jobs.Job:
    """In the server: everything the job leads to, in one transaction, fenced by the attempt. Raises Conflict."""
    assert job.call_id is not None
    found = done.transcription
    transcript = transcripts.create_transcript(
        conn, call_id=job.call_id, pass_="final", engine=done.engine, model=done.model, job_id=job.id
    )
    transcripts.put_segments(conn, transcript.id, found.segments)
    transcripts.finish_transcript(
        conn, transcript.id, state="done", language=found.language, warnings=[*warnings, *found.warnings]
    )
    calls.finish_call(conn, job.call_id, state="done", duration_s=found.duration_s, language=found.language)
    result: dict[str, Any] = {"call_id": job.call_id, "transcript_id": transcript.id, "language": found.language}
    return jobs.succeed(conn, job.id, job.attempts, result, done.usage)


def abandon(conn: Connection, job: jobs.Job) -> None:
    """In the server: the job has failed for good or was cancelled; say so on its call."""
    assert job.call_id is not None
    with suppress(NotFound):  # deleted meanwhile
        calls.finish_call(conn, job.call_id, state="failed", duration_s=None, language=None)
