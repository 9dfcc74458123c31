"""The job kind `transcribe`, in the server: a file that is stored, or behind a URL, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from callreel.calls import store as calls
from callreel.calls.deletion import delete_call
from callreel.engines.base import EngineSpec
from callreel.errors import Conflict, NotFound
from callreel.jobs import store as jobs
from callreel.offline.options import TranscribeOptions
from callreel.tasks.messages import Transcribed
from callreel.transcripts import store as transcripts

KIND = "transcribe"


class Params(msgspec.Struct, frozen=True):
    """What a job row keeps of its order. `engine` and `model` None: the settings'.

    `sha256` is the uploaded file's, None for a `url`. A call that is not `kept` is deleted once who asked for
    it has had it.
    """

    options: TranscribeOptions
    engine: str | None = None
    model: str | None = None
    sha256: str | None = None
    url: str | None = None
    kept: bool = True

    @classmethod
    def of(cls, job: jobs.Job) -> Params:
        return msgspec.convert(job.params, cls)


def submit(
    conn: Connection,
    *,
    client_id: str,
    call_id: str,
    title: str,
    params: Params,
    priority: str,
    labels: Mapping[str, str] | None = None,
    **queue: Any,
) -> tuple[jobs.Job, bool]:
    """A call made from the file that `call_id` keeps already, and the job that writes it down.

    `queue` is passed on to `jobs.enqueue`; as there, the answer says whether the job is new. Raises QueueFull, and
    Conflict where the job of the idempotency key is of another file or other options: answering it would be a lie.
    """
    job, new = jobs.enqueue(
        conn,
        client_id=client_id,
        kind=KIND,
        params=msgspec.to_builtins(params),
        priority=priority,
        call_id=call_id,
        **queue,
    )
    if not new and Params.of(job) != params:
        raise Conflict(
            "This Idempotency-Key was used for another request.",
            hint="Give each file, and each way to transcribe it, a key of its own; `job_id` is the earlier job",
            job_id=job.id,
        )
    if new:
        calls.create_call(
            conn,
            client_id=client_id,
            title=title,
            mode="postcall_only",
            state="processing",
            call_id=call_id,
            labels=labels,
        )
    return job, new


def cancel(conn: Connection, job_id: str, client_id: str) -> jobs.Job:
    """Cancel a client's job, and with it its call. Raises NotFound, Conflict for a finished one."""
    jobs.get(conn, job_id, client_id)
    cancelled = jobs.cancel(conn, job_id)
    abandon(conn, cancelled)
    return cancelled


def forget(conn: Connection, job: jobs.Job) -> None:
    """In the server: remove the call of a job that has ended; of the job its row stays, which says what it cost.

    Its files are the caller's to remove (`storage.removal`).
    """
    assert job.call_id is not None
    jobs.detach(conn, job.id)
    with suppress(NotFound):
        delete_call(conn, job.call_id)


def forget_unkept(conn: Connection) -> list[str]:
    """In the server, at its start: cancel and forget what nobody waits for any more; returns the ids of the calls."""
    unkept = jobs.unfinished_with(conn, KIND, "kept", False)
    for job in unkept:
        jobs.cancel(conn, job.id)
        forget(conn, job)
    return [job.call_id for job in unkept if job.call_id is not None]


def cache_key(params: Params, spec: EngineSpec) -> str | None:
    """Two jobs of one client with the same key have the same transcript; None for a file that is not known yet."""
    if params.sha256 is None:
        return None
    weights = Path(spec.model) / "model.bin"
    changed = weights.stat().st_mtime_ns if weights.is_file() else 0
    same = (params.sha256, params.options, spec.engine, spec.model, spec.url, spec.min_window_s, changed)
    return hashlib.sha256(msgspec.json.encode(same)).hexdigest()


def commit(
    conn: Connection, job: jobs.Job, done: Transcribed, warnings: tuple[str, ...], cache_key: str | None
) -> jobs.Job:
    """Everything the job leads to, in one transaction, fenced by the attempt. Raises Conflict."""
    assert job.call_id is not None
    jobs.require_held(conn, job.id, job.attempts)  # a cancelled one's call may be gone
    found = done.transcription
    for track in found.tracks:
        calls.add_track(conn, job.call_id, track.name, track.speaker, track.channel)
    transcript = transcripts.create_transcript(
        conn, call_id=job.call_id, pass_="final", engine=done.engine, model=done.model, job_id=job.id
    )
    transcripts.put_segments(conn, transcript.id, found.segments)
    transcripts.finish_transcript(
        conn, transcript.id, state="done", language=found.language, warnings=[*warnings, *found.warnings]
    )
    calls.finish_call(conn, job.call_id, state="done", duration_s=found.duration_s, language=found.language)
    result = _result(job.call_id, transcript.id, found.language)
    return jobs.succeed(conn, job.id, job.attempts, result, done.usage, cache_key=cache_key)


def commit_cached(conn: Connection, job: jobs.Job, earlier: jobs.Job) -> jobs.Job:
    """Give `job` what an earlier one of the same client made of the same file. Raises Conflict."""
    assert job.call_id is not None and earlier.result is not None and earlier.call_id is not None
    jobs.require_held(conn, job.id, job.attempts)
    source = calls.get_call(conn, earlier.call_id, job.client_id)
    for track in source.tracks:
        calls.add_track(conn, job.call_id, track.name, track.speaker, track.channel)
    copied = transcripts.copy_transcript(conn, earlier.result["transcript_id"], call_id=job.call_id, job_id=job.id)
    calls.finish_call(conn, job.call_id, state="done", duration_s=source.duration_s, language=copied.language)
    result = _result(job.call_id, copied.id, copied.language) | {"cached": True}
    return jobs.succeed(conn, job.id, job.attempts, result, None)


def _result(call_id: str, transcript_id: str, language: str | None) -> dict[str, Any]:
    return {"call_id": call_id, "transcript_id": transcript_id, "language": language}


def abandon(conn: Connection, job: jobs.Job) -> None:
    """The job has failed for good or was cancelled; say so on its call."""
    assert job.call_id is not None
    with suppress(NotFound):  # deleted meanwhile
        calls.finish_call(conn, job.call_id, state="failed", duration_s=None, language=None)
