"""One transcription in a process of its own, so that its memory and CPU time are nobody else's.

python -m callreel.measure.trial RESULT_FILE < ORDER_JSON
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from callreel.audio.pcm import seconds
from callreel.engines import catalogue
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Engine, EngineSpec, Window
from callreel.engines.frames import error_from
from callreel.engines.usage import peak_rss_bytes
from callreel.errors import CallreelError
from callreel.measure.harness import MeasureFailed
from callreel.measure.profile import Profiled
from callreel.offline.pipeline import TranscribeOptions, transcribe
from callreel.server.supervision import CHILD_ENVIRONMENT
from callreel.text import text_of

STDERR = 2


class Order(msgspec.Struct):
    """What is to be transcribed, and by which engine; `profiled`: see where the time goes, which costs time."""

    source: str
    spec: EngineSpec
    options: TranscribeOptions
    batch_min: int = 1
    batch_max: int = 8
    profiled: bool = False


class Trial(msgspec.Struct):
    """What it took. `wall_s` and `cpu_s` are of the transcription, media decoding included, model loading not.

    `windows` of together `window_s` were decoded, some of them twice, to `tokens`. `peak_rss_bytes` is the most the
    process ever had. `costliest` is a table for people, of a profiled one.
    """

    engine: str
    model: str
    load_s: float
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    audio_s: float
    windows: int
    window_s: float
    tokens: int
    text: str
    warnings: list[str] = []
    costliest: str = ""


class _Result(msgspec.Struct):
    trial: Trial | None = None
    error: dict[str, Any] | None = None


def run(order: Order) -> Trial:
    """Do it in a new process. Raises CallreelErrors with the codes of those that it raised there, or MeasureFailed."""
    with tempfile.TemporaryDirectory(prefix="callreel-") as folder:
        path = Path(folder) / "result.json"
        ended = subprocess.run(
            [sys.executable, "-m", "callreel.measure.trial", str(path)],
            input=msgspec.json.encode(order),
            stdout=STDERR,  # what a library prints must not stand in the table
            env={**os.environ, **CHILD_ENVIRONMENT},
            check=False,
        )
        if not path.exists():
            raise MeasureFailed(f"The process of a trial ended with {ended.returncode} and no result")
        result = msgspec.json.decode(path.read_bytes(), type=_Result)
    if result.error is not None:
        raise error_from(result.error)
    assert result.trial is not None
    return result.trial


class _Counted:
    """An engine that counts what goes through it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls: list[tuple[int, int, int]] = []  # windows, samples, tokens; appended to by any thread

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def model(self) -> str:
        return self._engine.model

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        decoded = self._engine.decode(windows, options)
        self.calls.append((len(windows), sum(len(w.pcm) for w in windows), sum(d.stats.tokens for d in decoded)))
        return decoded


def _tried(order: Order) -> Trial:
    began = time.perf_counter()
    engine = _Counted(catalogue.load(order.spec))
    load_s = time.perf_counter() - began
    profiled = Profiled(order.profiled)
    with tempfile.TemporaryDirectory(prefix="callreel-") as work, profiled:
        began, cpu_s = time.perf_counter(), time.process_time()
        done = transcribe(
            Path(order.source),
            engine,
            order.options,
            work=Path(work),
            batch_min=order.batch_min,
            batch_max=order.batch_max,
        )
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    windows, n_samples, tokens = (
        (sum(column) for column in zip(*engine.calls, strict=True)) if engine.calls else (0,) * 3
    )
    return Trial(
        engine=engine.name,
        model=engine.model,
        load_s=round(load_s, 3),
        wall_s=round(wall_s, 4),
        cpu_s=round(cpu_s, 4),
        peak_rss_bytes=peak_rss_bytes(),
        audio_s=done.duration_s,
        windows=windows,
        window_s=round(seconds(n_samples), 2),
        tokens=tokens,
        text=text_of(done.segments),
        warnings=list(done.warnings),
        costliest=profiled.costliest(),
    )


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        result = _Result(_tried(order))
    except CallreelError as error:
        result = _Result(error=error.as_dict())
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
