"""Reading over the API while a transcription has all cores: how late answers are, and whether all of them come."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from sqlalchemy import Connection

from callreel.accounts import keys
from callreel.calls import store as calls
from callreel.engines.base import EngineSpec
from callreel.measure.harness import MeasureFailed, ServerProcess, cpu_s, wait_for
from callreel.measure.material import babble_file
from callreel.measure.speed import synthetic_subjects
from callreel.measure.vocabulary import tokens
from callreel.offline.pipeline import LISTENING
from callreel.storage.database import Database
from callreel.text import Segment, Word
from callreel.transcripts import store as transcripts

TARGET_P99_S = 0.2
CALLS, SEGMENTS, WORDS = 300, 40, 12  # what there is to be read: calls, segments a call, words a segment
JOB_S_A_SECOND = 40.0  # of audio for a second of measuring: more than any machine transcribes with small weights
WORKS_WITHIN_S = 300.0
ANSWER_WITHIN_S = 10.0
SETTLE_S = 1.0  # connections are made, every path was read once


@dataclass(frozen=True, slots=True)
class _Answer:
    path: str  # its kind
    late_s: float  # from when it was due to be asked for, to its last byte
    ok: bool


def run(*, clients: int = 50, rate: float = 2.0, seconds: float = 30.0, size: str = "small") -> dict[str, Any]:
    """`clients` that each read `rate` times a second, in turns jobs, calls, transcripts, the search and /health.

    The transcription is made with synthetic weights of `size`. Raises MeasureFailed where it ended before the reading.
    """
    with (
        TemporaryDirectory(prefix="callreel-") as name,
        synthetic_subjects([size], EngineSpec("whisper", "", "models")) as (subject,),
    ):
        data = Path(name) / "data"
        call_ids, words = _filled(data)
        file = babble_file(Path(name) / "job.wav", JOB_S_A_SECOND * (seconds + 2 * SETTLE_S))
        flags = ("--engine", "whisper", "--model", subject.spec.model, "--live-engine", "pocketsphinx")
        environment = {"CALLREEL_MAX_FILE_SIZE": str(2 * file.stat().st_size)}
        with ServerProcess(data, *flags, environment=environment) as server:
            job_id = server.transcribe(file, language="en")["id"]
            wait_for(lambda: _percent(server, job_id) > LISTENING, WORKS_WITHIN_S, "the transcription works")
            paths = _paths(job_id, call_ids, words)
            began = cpu_s(server.children()["batch"]), time.monotonic()
            psutil.cpu_percent()
            answers = asyncio.run(_read(server.port, paths, clients, rate, seconds))
            machine_percent = psutil.cpu_percent()
            engine_cores = (cpu_s(server.children()["batch"]) - began[0]) / (time.monotonic() - began[1])
            if server.get(f"/v1/jobs/{job_id}")["state"] != "running":
                raise MeasureFailed("The transcription ended before the reading", hint="Measure for a shorter time")
    kinds = defaultdict[str, list[_Answer]](list)
    for answer in answers:
        kinds[answer.path].append(answer)
    return {
        "clients": clients,
        "requests_a_second_each": rate,
        "seconds": seconds,
        "calls_stored": CALLS,
        "segments_stored": CALLS * SEGMENTS,
        "transcription": {"size": size, "engine_cores": round(engine_cores, 2)},
        "machine_cpu_percent": machine_percent,
        "all": _facts(answers),
        "paths": {path: _facts(found) for path, found in sorted(kinds.items())},
        "target_p99_s": TARGET_P99_S,
    }


def _facts(answers: Sequence[_Answer]) -> dict[str, Any]:
    late_s = [answer.late_s for answer in answers]
    p50, p95, p99, most = (round(float(np.percentile(late_s, q)), 4) for q in (50, 95, 99, 100))
    failed = sum(not answer.ok for answer in answers)
    return {"number": len(answers), "failed": failed, "p50_s": p50, "p95_s": p95, "p99_s": p99, "max_s": most}


def _filled(data: Path) -> tuple[list[str], list[str]]:
    """A data folder with calls and their transcripts; the calls' ids, and words that are said in them."""
    words = [token[1:] for token in tokens()[256:1256]]
    database = Database.open(data)
    try:
        client = database.submit(keys.ensure_local_client).result()
        ids = [database.submit(partial(_call, client_id=client, words=words, seed=i)).result() for i in range(CALLS)]
    finally:
        database.close()
    return ids, words


def _call(conn: Connection, *, client_id: str, words: Sequence[str], seed: int) -> str:
    chance = random.Random(seed)
    call = calls.create_call(conn, client_id=client_id, title=f"call {seed}", mode="postcall_only", state="processing")
    calls.add_track(conn, call.id, "mix")
    transcript = transcripts.create_transcript(conn, call_id=call.id, pass_="final", engine="whisper", model="made-up")
    segments = []
    for seq in range(SEGMENTS):
        start, said = seq * WORDS / 2.5, chance.choices(words, k=WORDS)
        timed = tuple(Word(f" {word}", start + i / 2.5, start + (i + 1) / 2.5) for i, word in enumerate(said))
        segments.append(Segment("mix", seq, start, start + WORDS / 2.5, " ".join(said), timed, language="en"))
    transcripts.put_segments(conn, transcript.id, segments)
    transcripts.finish_transcript(conn, transcript.id, state="done", language="en", warnings=[])
    calls.finish_call(conn, call.id, state="done", duration_s=SEGMENTS * WORDS / 2.5, language="en")
    return call.id


def _paths(job_id: str, call_ids: Sequence[str], words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What is read, in turns: the kind of a path, and some of it."""
    return [
        ("/v1/jobs", ["/v1/jobs"]),
        ("/v1/jobs/{id}", [f"/v1/jobs/{job_id}"]),
        ("/v1/calls", ["/v1/calls"]),
        ("/v1/calls/{id}", [f"/v1/calls/{call}" for call in call_ids]),
        ("/v1/calls/{id}/transcript", [f"/v1/calls/{call}/transcript?format=json" for call in call_ids]),
        ("/v1/search", [f"/v1/search?q={word}" for word in words]),
        ("/health", ["/health"]),
    ]


async def _read(
    port: int, paths: Sequence[tuple[str, list[str]]], clients: int, rate: float, seconds: float
) -> list[_Answer]:
    began = time.monotonic() + SETTLE_S
    parts = (_client(port, paths, began + i / (clients * rate), rate, began + seconds, i) for i in range(clients))
    return [answer for part in await asyncio.gather(*parts) for answer in part]


async def _client(
    port: int, paths: Sequence[tuple[str, list[str]]], first: float, rate: float, until: float, seed: int
) -> list[_Answer]:
    """Asks at fixed moments, however late the answers are: what waits for an answer before it is late as well."""
    chance, reader, found = random.Random(seed), _Reader(port), list[_Answer]()
    for _, some in paths[seed % len(paths) :][:1]:
        await reader.get(some[0])
    try:
        for turn in count():
            due = first + turn / rate
            if due >= until:
                return found
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            kind, some = paths[(seed + turn) % len(paths)]
            ok = await reader.get(chance.choice(some))
            found.append(_Answer(kind, time.monotonic() - due, ok))
    finally:
        await reader.close()
    raise AssertionError("count() has no end")


class _Reader:
    """A client with one connection that is kept, and as little of its own work as can be: it runs beside the server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bool:
        """True for an answer of 200 that came whole, in time."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self._get(path)
        except (OSError, TimeoutError, EOFError, ValueError):
            await self.close()
            return False

    async def _get(self, path: str) -> bool:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        lengths = [line.partition(":")[2] for line in head.split("\r\n") if line.startswith("content-length:")]
        if not lengths:
            raise ValueError(f"{path} was answered without a length")
        await reader.readexactly(int(lengths[0]))
        return head.startswith("http/1.1 200 ")

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None


def _percent(server: ServerProcess, job_id: str) -> float:
    job = server.get(f"/v1/jobs/{job_id}")
    if job["state"] not in ("queued", "running"):
        raise MeasureFailed(f"The transcription is {job['state']}: {job['error']}")
    return float((job["progress"] or {}).get("percent", 0.0))


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    lines = [
        f"{result['clients']} clients at {result['requests_a_second_each']:g} requests a second for"
        f" {result['seconds']:g} s, {result['calls_stored']} calls stored; a"
        f" transcription has {result['transcription']['engine_cores']:.2f} cores, the machine is at"
        f" {result['machine_cpu_percent']:.0f} %",
        f"{'times in ms':26} {'number':>6} {'failed':>6} {'p50':>7} {'p95':>7} {'p99':>7} {'max':>7}",
    ]
    for name, facts in (*result["paths"].items(), ("all", result["all"])):
        times = " ".join(f"{1000 * facts[key]:7.1f}" for key in ("p50_s", "p95_s", "p99_s", "max_s"))
        lines.append(f"{name:26} {facts['number']:6} {facts['failed']:6} {times}")
    return "\n".join([*lines, f"target: p99 {1000 * result['target_p99_s']:.0f} ms, none failed"])
