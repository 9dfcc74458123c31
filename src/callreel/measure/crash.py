"""kill -9 of each process in turn, under one running job and two running streams: what was accepted must be stored,
once, and no process may be left over.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from callreel.audio.pcm import seconds
from callreel.live.tracklog import logged_samples
from callreel.measure.harness import Played, ServerProcess, play, samples_of, wait_for
from callreel.measure.material import wave_file
from callreel.measure.wer import Alignment, compare

RECORDINGS = ("en_live_20s.flac", "en_long_50s.flac")
VICTIMS = ("serve", "live", "batch", "job")
KILL_AFTER_S = 8.0  # of speech: words are committed, others are on their way
GONE_WITHIN_S = 5.0
EDGE_S = 1.0  # the last words before the crash may be cut in two by it, and are not compared
JOB_COPIES = 12  # of the last recording in the job's file: long enough to be struck in the middle


@dataclass(frozen=True, slots=True)
class CrashResult:
    """What one kill did. `lost` and `doubled` count words of the accepted audio against an undisturbed run.

    `recovery_s`: from the kill until the process was there again, for serve until it was ready with all words stored.
    """

    killed: str
    recovery_s: float
    accepted_s: float
    words: int
    lost: int
    doubled: int
    job_attempts: int
    job_same_text: bool
    left_over: int


def run(
    audio: Path, model: Path, *, recordings: Sequence[str] = RECORDINGS, victims: Sequence[str] = VICTIMS
) -> dict[str, Any]:
    """Kill each of `victims` under full work: a stream of each recording, and a job.

    `audio` holds the recordings, `model` is a folder of Whisper weights that understands them.
    """
    scene = _Scene(audio, model, tuple(recordings))
    undisturbed = scene.undisturbed()
    results = [scene.kill(victim, undisturbed) for victim in victims]
    return {"results": [asdict(result) for result in results]}


def report(result: dict[str, Any]) -> str:
    """The result as a table."""
    lines = ["killed   recovery  accepted  words  lost  doubled  job's text  attempts  left over"]
    lines += [
        f"{r['killed']:8} {r['recovery_s']:6.2f} s  {r['accepted_s']:6.1f} s  {r['words']:5}  {r['lost']:4}"
        f"  {r['doubled']:7}  {'same' if r['job_same_text'] else 'DIFFERENT':>10}  {r['job_attempts']:8}"
        f"  {r['left_over']:9}"
        for r in result["results"]
    ]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What an undisturbed server writes: of each stream the words with their times, of the job the text."""

    streams: list[list[dict[str, Any]]]
    job: str


@dataclass(frozen=True, slots=True)
class _Scene:
    """A server under work: a stream of each recording, and one job."""

    audio: Path
    model: Path
    recordings: tuple[str, ...]

    def undisturbed(self) -> Undisturbed:
        with self._server() as server:
            played = asyncio.run(self._play(server, [str(uuid.uuid4()) for _ in self.recordings]))
            calls = [server.call_of(p.uid)["id"] for p in played]
            job = server.finished_job(server.transcribe(self._job_file(server))["id"])
            return Undisturbed([_words(server, call) for call in calls], server.text(job["call_id"]))

    def kill(self, victim: str, undisturbed: Undisturbed) -> CrashResult:
        with self._server() as server:
            uids = [str(uuid.uuid4()) for _ in self.recordings]
            blow = _Blow(server, victim, self._job_file(server))
            asyncio.run(self._play(server, uids, blow))
            left_over = 0
            if victim == "serve":
                left_over = _alive(blow.family)
                server.start()
            calls = [server.finished_call(server.call_of(uid)["id"])["id"] for uid in uids]
            job = server.finished_job(blow.job["id"])
            recovery_s = time.monotonic() - blow.at if victim == "serve" else blow.back_after_s
            same = server.text(job["call_id"]) == undisturbed.job
            accepted_s = [_accepted_s(server.data, call) for call in calls]
            found = [
                _compare(undisturbed.streams[i], _words(server, call), accepted_s[i]) for i, call in enumerate(calls)
            ]
            family = [psutil.Process(server.pid), *server.children().values()]
            server.stop()
            return CrashResult(
                killed=victim,
                recovery_s=round(recovery_s, 2),
                accepted_s=round(sum(accepted_s), 2),
                words=sum(f.words for f in found),
                lost=sum(f.deletions for f in found),
                doubled=sum(f.doubled for f in found),
                job_attempts=job["attempts"],
                job_same_text=same,
                left_over=left_over + _alive(family),
            )

    @contextmanager
    def _server(self) -> Iterator[ServerProcess]:
        with (
            tempfile.TemporaryDirectory(prefix="callreel-") as folder,
            ServerProcess(Path(folder), "--engine", "whisper", "--model", str(self.model)) as server,
        ):
            yield server

    async def _play(
        self, server: ServerProcess, uids: list[str], blow: Callable[[], None] | None = None
    ) -> list[Played]:
        async def later() -> None:
            if blow is not None:
                await asyncio.sleep(KILL_AFTER_S)
                await asyncio.to_thread(blow)

        pcm = [samples_of(self.audio / name) for name in self.recordings]
        streams = [play(server.live_url, part, uid=uid) for part, uid in zip(pcm, uids, strict=True)]
        *played, _ = await asyncio.gather(*streams, later())
        return [p for p in played if isinstance(p, Played)]

    def _job_file(self, server: ServerProcess) -> Path:
        pcm = samples_of(self.audio / self.recordings[-1])
        return wave_file(server.data / "job.wav", [pcm], JOB_COPIES * seconds(len(pcm)))


class _Blow:
    """Starts the job, waits until it works, then kills the victim. Called in a thread, beside the streams."""

    def __init__(self, server: ServerProcess, victim: str, job_file: Path) -> None:
        self._server, self._victim, self._job_file = server, victim, job_file
        self.job: dict[str, Any] = {}
        self.family: list[psutil.Process] = []
        self.at = self.back_after_s = 0.0

    def __call__(self) -> None:
        server, victim = self._server, self._victim
        self.job = server.transcribe(self._job_file)
        wait_for(self._works, 30, "the job is in its middle")
        children = server.children()
        self.family = list(children.values())
        self.at = time.monotonic()
        if victim == "serve":
            server.kill()
            return
        children[victim].kill()
        wait_for(lambda: server.children().get(victim, children[victim]).pid != children[victim].pid, 30, "it is back")
        self.back_after_s = time.monotonic() - self.at

    def _works(self) -> bool:
        job = self._server.get(f"/v1/jobs/{self.job['id']}")
        return bool(10 < job["progress"].get("percent", 0) < 90)


def _compare(undisturbed: list[dict[str, Any]], stored: list[dict[str, Any]], accepted_s: float) -> Alignment:
    until = accepted_s - EDGE_S
    slack_s = 0.3  # the same word may end a little later in another decode
    return compare(
        _text([w for w in undisturbed if w["end"] <= until]), _text([w for w in stored if w["end"] <= until + slack_s])
    )


def _words(server: ServerProcess, call_id: str) -> list[dict[str, Any]]:
    document = server.get(f"/v1/calls/{call_id}/transcript?format=json")
    return [word for segment in document["segments"] for word in segment["words"]]


def _text(words: list[dict[str, Any]]) -> str:
    return "".join(word["word"] for word in words)


def _accepted_s(data: Path, call_id: str) -> float:
    logs = data / "live"
    return sum(seconds(logged_samples(logs, call_id, stream.name)) for stream in (logs / call_id).iterdir())


def _alive(processes: list[psutil.Process]) -> int:
    """How many of them are still there after a while."""
    return len(psutil.wait_procs(processes, GONE_WITHIN_S)[1])
