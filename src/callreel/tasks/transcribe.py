"""The job kind `transcribe`: a stored file, or one behind a URL, to a final transcript."""

from __future__ import annotations

import hashlib
import logging
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from callreel import net
from callreel.calls import store as calls
from callreel.engines.base import EngineSpec
from callreel.engines.remote import RemoteEngine
from callreel.errors import NotFound, UnreadableMedia
from callreel.jobs import store as jobs
from callreel.offline.checkpoint import Checkpoint
from callreel.offline.pipeline import Progress, TranscribeOptions, transcribe
from callreel.tasks.messages import Progressed, Report, Source, Spoken, Transcribed, TranscribeOrder
from callreel.transcripts import store as transcripts

KIND = "transcribe"
UNREADABLE_HINT = "Check that the file plays and has sound, and that all of it was sent; then send it again"
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes

log = logging.getLogger("callreel.job")


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
    labels: dict[str, Any] | None = None,
    **queue: Any,
) -> tuple[jobs.Job, bool]:
    """In the server: a call made from the file that `call_id` keeps already, and the job that writes it down.

    `queue` is passed on to `jobs.enqueue`; as there, the answer says whether the job is new. Raises QueueFull.
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
    """In the server: cancel a client's job, and with it its call. Raises NotFound, Conflict for a finished one."""
    jobs.get(conn, job_id, client_id)
    cancelled = jobs.cancel(conn, job_id)
    abandon(conn, cancelled)
    return cancelled


def cache_key(params: Params, spec: EngineSpec) -> str | None:
    """Two jobs of one client with the same key have the same transcript; None for a file that is not known yet."""
    if params.sha256 is None:
        return None
    weights = Path(spec.model) / "model.bin"
    changed = weights.stat().st_mtime_ns if weights.is_file() else 0
    same = (params.sha256, params.options, spec.engine, spec.model, spec.url, spec.min_window_s, changed)
    return hashlib.sha256(msgspec.json.encode(same)).hexdigest()


def run(order: TranscribeOrder, report: Callable[[Report], None]) -> Transcribed:
    """In the job child: do the work. Raises what fetching and `offline.pipeline.transcribe` raise."""
    began = time.monotonic()
    told = _Told(report)
    source, work = Path(order.source.path), Path(order.work)
    _fetch(order.source, told.progress)
    engine = RemoteEngine(Path(order.engine_socket))
    log.info("engine %s, model %s, profile %s", engine.name, engine.model, order.options.profile)
    try:
        with Checkpoint.opened(work) as checkpoint:
            transcription = transcribe(
                source,
                engine,
                order.options,
                work=work,
                checkpoint=checkpoint,
                batch_min=order.batch_min,
                batch_max=order.batch_max,
                max_duration_s=order.max_audio_s,
                on_progress=told.progress,
                on_segments=lambda segments: report(Spoken(list(segments))),
            )
    except UnreadableMedia as error:
        raise UnreadableMedia(str(error), hint=error.hint or UNREADABLE_HINT) from error
    used = resource.getrusage(resource.RUSAGE_SELF)
    wall_s = time.monotonic() - began
    usage = {
        "wall_s": round(wall_s, 3),
        "cpu_s": round(used.ru_utime + used.ru_stime + engine.cpu_s, 3),
        "peak_rss_bytes": used.ru_maxrss * RSS_UNIT + engine.peak_rss_bytes,
        "audio_s": transcription.duration_s,
        "rtfx": round(transcription.duration_s / wall_s, 2),
    }
    log.info("done: %s", ", ".join(f"{name} {value}" for name, value in usage.items()))
    for warning in transcription.warnings:
        log.warning("%s", warning)
    return Transcribed(transcription, engine.name, engine.model, usage)


class _Told:
    """Progress to the server, and each new step to the job's log."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        self._report, self._step = report, ""

    def progress(self, progress: Progress) -> None:
        if progress.step != self._step:
            self._step = progress.step
            log.info("%s (%.0f %%)", progress.step, progress.percent)
        self._report(Progressed(progress))


def _fetch(source: Source, on_progress: Callable[[Progress], None]) -> None:
    path = Path(source.path)
    if source.url is None or path.exists():
        return
    on_progress(Progress(0.0, "fetch"))
    path.parent.mkdir(parents=True, exist_ok=True)
    net.fetch(
        source.url,
        path,
        max_bytes=source.max_bytes,
        timeout_s=source.timeout_s,
        allow_networks=source.allow_networks,
    )


def commit(
    conn: Connection, job: jobs.Job, done: Transcribed, warnings: tuple[str, ...], cache_key: str | None
) -> jobs.Job:
    """In the server: everything the job leads to, in one transaction, fenced by the attempt. Raises Conflict."""
    assert job.call_id is not None
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
    """In the server: give `job` what an earlier one of the same client made of the same file. Raises Conflict."""
    assert job.call_id is not None and earlier.result is not None and earlier.call_id is not None
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
    """In the server: the job has failed for good or was cancelled; say so on its call."""
    assert job.call_id is not None
    with suppress(NotFound):  # deleted meanwhile
        calls.finish_call(conn, job.call_id, state="failed", duration_s=None, language=None)
