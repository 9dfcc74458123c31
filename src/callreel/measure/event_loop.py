"""What paced streams cost the server process: event loop lag, CPU time, and memory a stream.

The live engine is the oracle, in its own process as any engine; what is measured is `serve`.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from callreel.measure import oracle
from callreel.measure.harness import Played, ServerProcess, cpu_s
from callreel.measure.latency import Script, Spoken, play_all, scripts, seconds_of

TARGET_LAG_P99_S = 0.050
LAG_METRIC = "event_loop_lag_seconds"
WARM_UP_S = 8.0
WARM_UP_STREAMS = 4
MEMORY_LEVELS = (0, 16, 64)  # streams open at once
MEMORY_STRETCH_S = 20.0
SAMPLE_EVERY_S = 0.25
# For memory the engine must keep up, or what waits for it would be counted: no padding, and few partials.
MEMORY_ENVIRONMENT = {"CALLREEL_ENGINES_MIN_WINDOW_S": "0", "CALLREEL_LIVE_HOP_S": "10"}
RAMP_S = 1.0  # over which the streams of one measurement begin

Buckets = Mapping[float, float]  # upper bound in seconds -> how many observations up to it


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of a histogram: interpolated inside the bucket (low, high] that holds it."""

    value: float
    low: float
    high: float


def run(
    audio: Path,
    model: Path,
    *,
    live_size: str = "tiny",
    streams: int = 16,
    stretch_s: float = 60.0,
    levels: Sequence[int] = MEMORY_LEVELS,
    memory_stretch_s: float = MEMORY_STRETCH_S,
) -> dict[str, Any]:
    """Lag, CPU and latency under `streams` for `stretch_s`; then, in a server of its own, memory by `levels`.

    `model` lends its tokenizer, `audio` holds references.json.
    """
    with tempfile.TemporaryDirectory(prefix="callreel-") as name:
        folder = Path(name)
        live = oracle.prepare(folder / "live", live_size, tokenizer_from=model, audio=audio)
        # Nothing asks the batch engine; PocketSphinx loads fastest.
        flags = ("--engine", "pocketsphinx", "--live-engine", oracle.ENGINE, "--live-model", str(live))
        with ServerProcess(folder / "load", *flags) as server:
            _warm_up(server, audio)
            load = _load(server, audio, streams, stretch_s)
        with ServerProcess(folder / "memory", *flags, environment=MEMORY_ENVIRONMENT) as server:
            _warm_up(server, audio)
            memory = _memory(server, audio, levels, memory_stretch_s)
    return {
        "live": {"engine": "oracle", "size": live_size, "streams": streams, "stretch_s": stretch_s},
        **load,
        "memory": memory,
    }


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    lag, finals, memory = result["lag_s"], result["final_s"], result["memory"]
    low, high = lag["p99_bucket"]
    levels = ", ".join(f"{rss / 2**20:.1f} MiB with {n}" for n, rss in memory["rss_bytes"].items())
    return "\n".join(
        [
            f"{result['live']['streams']} streams, oracle {result['live']['size']}, {result['live']['stretch_s']:g} s",
            f"event loop lag: p50 {1000 * lag['p50']:.2f} ms, p99 {1000 * lag['p99']:.1f} ms, in the bucket from"
            f" {1000 * low:g} to {_ms(high)} ms, of {lag['number']} timers (target {1000 * lag['target_p99']:.0f} ms)",
            f"end of utterance to final: p50 {finals['p50']} s, p95 {finals['p95']} s, max {finals['max']} s;"
            f" {finals['number']} utterances, {finals['lost']} lost, WER {100 * result['wer']:.2f}%",
            f"serve: {1000 * result['serve_cpu_s_per_stream_s']:.2f} ms of CPU a second of a stream;"
            f" live engine: {result['live_cores']:.2f} cores",
            f"memory of serve: {levels}; {memory['bytes_per_stream'] / 1024:.0f} KiB a stream",
        ]
    )


def _ms(bound_s: float | None) -> str:
    return "any" if bound_s is None else f"{1000 * bound_s:g}"


def _warm_up(server: ServerProcess, audio: Path) -> None:
    """Everything has run once: imports, threads, the first allocations."""
    parts = scripts(audio, WARM_UP_STREAMS, WARM_UP_S)
    asyncio.run(play_all(server.live_url, parts, stagger_s=RAMP_S / WARM_UP_STREAMS))


def _load(server: ServerProcess, audio: Path, streams: int, stretch_s: float) -> dict[str, Any]:
    parts = scripts(audio, streams, stretch_s)
    before, began = lag_buckets(server.get("/metrics")), time.monotonic()
    serve, engine = psutil.Process(server.pid), server.children()["live"]
    before_s = cpu_s(serve), cpu_s(engine)
    spoken = Spoken.of(asyncio.run(play_all(server.live_url, parts, stagger_s=RAMP_S / streams)), parts)
    serve_s, engine_s = cpu_s(serve) - before_s[0], cpu_s(engine) - before_s[1]
    wall_s = time.monotonic() - began
    after = lag_buckets(server.get("/metrics"))
    lag = {bound: after[bound] - before[bound] for bound in after}
    p50, p99 = quantile(lag, 0.50), quantile(lag, 0.99)
    return {
        "lag_s": {
            "p50": round(p50.value, 6),
            "p99": round(p99.value, 6),
            "p99_bucket": [p99.low, p99.high if isfinite(p99.high) else None],  # JSON has no infinity
            "number": round(max(lag.values())),
            "target_p99": TARGET_LAG_P99_S,
        },
        **spoken.facts(),
        "serve_cpu_s_per_stream_s": round(serve_s / seconds_of(parts), 6),
        "serve_cores": round(serve_s / wall_s, 3),
        "live_cores": round(engine_s / wall_s, 3),
    }


def _memory(server: ServerProcess, audio: Path, levels: Sequence[int], stretch_s: float) -> dict[str, Any]:
    """RSS of `serve` with so many streams open and talking, and the slope of the line through them."""
    rss: dict[str, int] = {}
    wrong: dict[str, int] = {}  # words; many would say that audio was waiting, and was counted
    for streams in levels:
        parts = scripts(audio, streams, stretch_s)
        found: list[int] = []
        played = asyncio.run(_play_and_look(server, parts, found))
        rss[str(streams)], wrong[str(streams)] = max(found), Spoken.of(played, parts).errors
    slope = float(np.polyfit([float(n) for n in levels], [float(rss[str(n)]) for n in levels], 1)[0])
    return {"rss_bytes": rss, "bytes_per_stream": round(slope), "stretch_s": stretch_s, "wrong_words": wrong}


async def _play_and_look(server: ServerProcess, parts: Sequence[Script], found: list[int]) -> list[Played]:
    looking = asyncio.create_task(_keep_looking(psutil.Process(server.pid), found))
    try:
        await asyncio.sleep(2 * SAMPLE_EVERY_S)  # also without a stream there is something to see
        return await play_all(server.live_url, parts, stagger_s=RAMP_S / max(1, len(parts)))
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def _keep_looking(process: psutil.Process, found: list[int]) -> None:
    while True:
        found.append(process.memory_info().rss)
        await asyncio.sleep(SAMPLE_EVERY_S)


def lag_buckets(metrics: str) -> dict[float, float]:
    """The event loop's lag in a text of /metrics: upper bound in seconds, infinity last -> observations up to it."""
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == f"{LAG_METRIC}_bucket"
    }


def quantile(buckets: Buckets, q: float) -> Quantile:
    """The `q` quantile (0..1) of cumulative `buckets`, as if observations were spread evenly inside each bucket.

    Beyond the last finite bound it is that bound. Raises ValueError for a histogram without observations.
    """
    bounds = sorted(buckets)
    rank = q * buckets[bounds[-1]]
    if not buckets[bounds[-1]]:
        raise ValueError("a histogram without observations has no quantiles")
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            if bound == inf:
                return Quantile(low, low, bound)
            return Quantile(low + (bound - low) * (rank - below) / (buckets[bound] - below), low, bound)
        low, below = bound, buckets[bound]
    raise AssertionError("the last bucket holds everything")
