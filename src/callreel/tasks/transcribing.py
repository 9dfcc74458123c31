"""The job kind `transcribe`, in the job child: the file is fetched, read, and written down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from callreel.engines.remote import RemoteEngine
from callreel.engines.usage import peak_rss_bytes
from callreel.errors import disk_fault
from callreel.offline.checkpoint import Checkpoint
from callreel.offline.pipeline import Progress, transcribe
from callreel.storage.files import adopt
from callreel.tasks.messages import Progressed, Report, Source, Spoken, Transcribed, TranscribeOrder

log = logging.getLogger("callreel.job")


def run(order: TranscribeOrder, report: Callable[[Report], None]) -> Transcribed:
    """Do the work. Raises what fetching and `offline.pipeline.transcribe` raise."""
    told = _Told(report)
    source, work = Path(order.source.path), Path(order.work)
    _fetch(order.source, work, told.progress)
    engine = RemoteEngine(Path(order.engine_socket))
    log.info("engine %s, model %s, profile %s", engine.name, engine.model, order.options.profile)
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
    wall_s = time.time() - psutil.Process().create_time()  # as CPU time: what came before this line counts
    usage = {
        "wall_s": round(wall_s, 3),
        "cpu_s": round(time.process_time() + engine.cpu_s, 3),
        "peak_rss_bytes": peak_rss_bytes() + engine.peak_rss_bytes,
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


def _fetch(source: Source, work: Path, on_progress: Callable[[Progress], None]) -> None:
    """Into `work` first: whatever ends this process, nothing half fetched stands among the calls' files."""
    path = Path(source.path)
    if source.url is None or path.exists():
        return
    on_progress(Progress(0.0, "fetch"))
    from callreel import net  # what most jobs can do without takes a quarter of a second to import

    fetched = net.fetch(
        source.url,
        work / "fetched",
        max_bytes=source.max_bytes,
        timeout_s=source.timeout_s,
        allow_networks=source.allow_networks,
    )
    with suppress(OSError):
        path.parent.rmdir()  # of an attempt that was killed in the middle of the next lines
    try:
        adopt(fetched.path, path)
    except OSError as error:
        raise disk_fault(error) from error
