"""Live streams with a batch job beside them, against the same streams without it, in one server.

Real processes and real work: the live engine is the oracle, the batch engine Whisper over synthetic weights. Stretches
with and without the job take turns, so that what else the machine does hits both.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from callreel.measure import oracle
from callreel.measure.harness import MeasureFailed, ServerProcess, cpu_s, samples_of, wait_for
from callreel.measure.latency import Latency, Script, Spoken, play_all, scripts
from callreel.measure.material import duration_s, wave_file
from callreel.measure.synthetic import write_weights
from callreel.offline.pipeline import LISTENING

TARGET_RATIO = 1.3
CHAIN = 100  # tokens a window: what 30 s of speech come to, at 2.5 words a second
JOB_S_A_SECOND = {"tiny": 200.0, "base": 100.0, "small": 40.0}  # more audio than any machine transcribes in a second
JOB_RECORDING, WARM_UP_RECORDING = "en_long_50s.flac", "en_short.wav"
WARM_UP_S = 8.0
STAGGER_S = 0.7  # no divisor of a hop of 1 s: the streams' decodes do not fall together
LOOK_EVERY_S = 0.5
AT_WORK_S = 0.1  # of CPU time between two looks
BATCH_IDLE_S = 0.5  # without any CPU time, the batch engine has nothing left to do
DRAINED_WITHIN_S = 300.0  # a cancelled job's last call to the engine goes on to its end


@dataclass(frozen=True, slots=True)
class Stretch:
    """One time of playing all scripts: audio seconds a second of the job beside it, and the cores that were busy with
    the batch engine, the live engine, and neither (the server, the clients, and whatever else the machine does).
    """

    spoken: Spoken
    job_rtfx: float | None = None
    batch_cores: float = 0.0
    live_cores: float = 0.0
    other_cores: float = 0.0


def run(
    audio: Path,
    model: Path,
    *,
    live_size: str = "tiny",
    batch_size: str = "small",
    streams: int = 4,
    pairs: int = 3,
    stretch_s: float = 60.0,
    job_s: float | None = None,
) -> dict[str, Any]:
    """Play `streams` scripts of about `stretch_s` for `pairs` times without and with a job.

    `model` lends its tokenizer, `audio` holds references.json. `job_s` is the length of the job's recording; longer
    than any machine gets by default. Raises MeasureFailed when that was too short, or when no final came.
    """
    with tempfile.TemporaryDirectory(prefix="callreel-") as name:
        folder = Path(name)
        live = oracle.prepare(folder / "live", live_size, tokenizer_from=model, audio=audio)
        batch = write_weights(batch_size, folder / "batch", tokenizer_from=model, chain=CHAIN)
        job_s = job_s or JOB_S_A_SECOND[batch_size] * stretch_s
        file = wave_file(folder / "job.wav", [samples_of(audio / JOB_RECORDING)], job_s)
        warm_up, parts = scripts(audio, streams, WARM_UP_S), scripts(audio, streams, stretch_s)
        flags = (
            "--engine",
            "whisper",
            "--model",
            str(batch),
            "--live-engine",
            oracle.ENGINE,
            "--live-model",
            str(live),
        )
        with ServerProcess(folder / "data", *flags) as server:
            _warm_up(server, audio, warm_up)
            without: list[Stretch] = []
            beside: list[Stretch] = []
            for pair in range(pairs):
                for job in (None, file) if pair % 2 == 0 else (file, None):  # a drift of the machine hits both
                    (beside if job else without).append(_stretch(server, parts, job))
    return {
        "live": {"engine": "oracle", "size": live_size, "streams": streams, "stretch_s": stretch_s},
        "batch": {"engine": "whisper", "size": batch_size, "tokens_a_window": CHAIN},
        **_result(without, beside),
    }


def _result(without: Sequence[Stretch], beside: Sequence[Stretch]) -> dict[str, Any]:
    """Ratios are of the p95 from the end of an utterance to its final, with the job over without it."""
    ratios = [_ratio(w.spoken, b.spoken) for w, b in zip(without, beside, strict=True)]
    quiet, busy = (Spoken.pooled([stretch.spoken for stretch in stretches]) for stretches in (without, beside))
    rtfx = [stretch.job_rtfx for stretch in beside if stretch.job_rtfx is not None]
    return {
        "without": quiet.facts() | _cores(without),
        "beside": busy.facts() | _cores(beside),
        "p95_s_of_pairs": [
            [Latency.of(s.spoken.finals).p95 for s in pair] for pair in zip(without, beside, strict=True)
        ],
        "ratio_of_pairs": ratios,
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_pooled": _ratio(quiet, busy),
        "target_ratio": TARGET_RATIO,
        "job_rtfx": round(statistics.median(rtfx), 2) if rtfx else None,
    }


def _cores(stretches: Sequence[Stretch]) -> dict[str, float]:
    names = ("live_cores", "batch_cores", "other_cores")
    return {name: round(statistics.fmean(getattr(stretch, name) for stretch in stretches), 3) for name in names}


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    live, batch = result["live"], result["batch"]
    lines = [
        f"{live['streams']} streams, oracle {live['size']}; job: whisper {batch['size']}; times in s, end of utterance"
        " to final",
        f"{'':8} {'p50':>7} {'p95':>7} {'p99':>7} {'max':>7} {'number':>7} {'lost':>5} {'WER':>7}"
        "   cores: live, batch, other",
    ]
    for name in ("without", "beside"):
        row, f = result[name], result[name]["final_s"]
        numbers = " ".join(f"{_or_dash(f[key]):>7}" for key in ("p50", "p95", "p99", "max"))
        lines.append(
            f"{name:8} {numbers} {f['number']:7} {f['lost']:5} {100 * row['wer']:6.2f}%"
            f"   {row['live_cores']:.2f}, {row['batch_cores']:.2f}, {row['other_cores']:.2f}"
        )
    pairs = ", ".join(f"{ratio:.2f}" for ratio in result["ratio_of_pairs"])
    lines += [
        f"p95 beside / without: pairs {pairs}; median {result['ratio_median']:.2f}, pooled {result['ratio_pooled']:.2f}"
        f" (target {result['target_ratio']})",
        f"the job meanwhile: {_or_dash(result['job_rtfx'])} s of audio a second",
    ]
    return "\n".join(lines)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ratio(without: Spoken, beside: Spoken) -> float:
    low, high = Latency.of(without.finals).p95, Latency.of(beside.finals).p95
    if low is None or high is None:
        raise MeasureFailed("no utterance got a final", hint="See serve.log: does the live engine work?")
    return round(high / low, 3)


def _warm_up(server: ServerProcess, audio: Path, parts: Sequence[Script]) -> None:
    """Both engines are loaded and have worked once: what happens only once is not measured."""
    server.finished_job(server.transcribe(audio / WARM_UP_RECORDING, language="en")["id"], DRAINED_WITHIN_S)
    asyncio.run(play_all(server.live_url, parts, stagger_s=STAGGER_S))


def _stretch(server: ServerProcess, parts: Sequence[Script], file: Path | None) -> Stretch:
    _until_drained(server)
    idle_s = _batch_cpu_s(server)
    job = server.transcribe(file, language="en") if file else None
    if job:
        wait_for(lambda: _batch_cpu_s(server) - idle_s >= AT_WORK_S, DRAINED_WITHIN_S, "the job's engine works")
    path = f"/v1/jobs/{job['id']}" if job else "/v1/jobs?limit=1"  # looked at without a job, too: it costs something
    looks: list[_Look] = []

    async def play_and_look() -> Spoken:
        looking = asyncio.create_task(_keep_looking(server, path, looks))
        try:
            return Spoken.of(await play_all(server.live_url, parts, stagger_s=STAGGER_S), parts)
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    spoken = asyncio.run(play_and_look())
    looks.append(_Look.of(server, path))
    first, last = looks[0], looks[-1]
    live, batch, busy = ((b - a) / (last.at - first.at) for a, b in zip(first.cpu_s, last.cpu_s, strict=True))
    other = max(0.0, busy - live - batch)
    if not (job and file):
        return Stretch(spoken, None, batch, live, other)
    if last.state != "running":
        raise MeasureFailed(
            f"The job was {last.state} before the live streams ended", hint="Give it more audio with --job-seconds"
        )
    _cancel(server, job["id"])
    return Stretch(spoken, _rtfx(looks, duration_s(file)), batch, live, other)


@dataclass(frozen=True, slots=True)
class _Look:
    """At a monotonic second: the job's state and progress, and CPU seconds of live engine, batch engine and all."""

    at: float
    state: str
    percent: float
    cpu_s: tuple[float, float, float]

    @classmethod
    def of(cls, server: ServerProcess, path: str) -> _Look:
        job, children = server.get(path), server.children()
        live, batch = (cpu_s(children[role]) for role in ("live", "batch"))
        whole = psutil.cpu_times()
        busy = float(sum(whole) - whole.idle - getattr(whole, "iowait", 0.0) - getattr(whole, "guest", 0.0))
        progress = job.get("progress") or {}
        return cls(time.monotonic(), job.get("state", ""), progress.get("percent", 0.0), (live, batch, busy))


async def _keep_looking(server: ServerProcess, path: str, looks: list[_Look]) -> None:
    while True:
        looks.append(await asyncio.to_thread(_Look.of, server, path))
        await asyncio.sleep(LOOK_EVERY_S)


def _rtfx(looks: Sequence[_Look], audio_s: float) -> float | None:
    """Audio seconds a second, from when the engine began to work to the last batch that ended; None if none did."""
    began = next((b.at for a, b in pairwise(looks) if b.cpu_s[1] - a.cpu_s[1] >= AT_WORK_S), None)
    ended = [(b.at, b.percent) for a, b in pairwise(looks) if b.percent > max(a.percent, LISTENING)]
    if began is None or not ended or ended[-1][0] <= began:
        return None
    at, percent = ended[-1]
    return audio_s * (percent - LISTENING) / (99.0 - LISTENING) / (at - began)


def _batch_cpu_s(server: ServerProcess) -> float:
    return cpu_s(server.children()["batch"])


def _cancel(server: ServerProcess, job_id: str) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/v1/jobs/{job_id}/cancel", method="POST")
    urllib.request.urlopen(request, timeout=30).close()


def _until_drained(server: ServerProcess) -> None:
    """Wait until the batch engine has worked off what a cancelled job left: the next stretch must be without it."""
    since, used = time.monotonic(), -1.0

    def idle() -> bool:
        nonlocal since, used
        if (now_s := _batch_cpu_s(server)) != used:
            since, used = time.monotonic(), now_s
        return time.monotonic() - since >= BATCH_IDLE_S and "job" not in server.children()

    wait_for(idle, DRAINED_WITHIN_S, "the batch engine is idle")
