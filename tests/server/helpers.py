"""A server for tests to talk to, and what a client of it does."""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from websockets.asyncio.client import ClientConnection, connect

from callreel.accounts import keys
from callreel.audio.pcm import BYTES_PER_SAMPLE, SAMPLE_RATE, Pcm
from callreel.live.tracklog import logged_samples
from callreel.measure.harness import ServerProcess, samples_of, wait_for
from callreel.measure.wer import compare
from callreel.storage.database import Database

DATA = Path(__file__).parents[1] / "data"
TOY_MODEL, TOY_AUDIO = DATA / "whisper-toy", DATA / "audio"
TOY = ("--engine", "whisper", "--model", str(TOY_MODEL))

DEADLINE_S = 30.0  # how long a test waits for what must come
FRAME_BYTES = 8192
UPLOAD_LIMIT = 40_000_000
STALL_S = 0.6
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "CALLREEL_MAX_FILE_SIZE": str(UPLOAD_LIMIT),
    "CALLREEL_LIVE_STALL_S": str(STALL_S),
    "CALLREEL_ENGINES_THREADS": "2",
    "CALLREEL_JOBS_MAX_CONCURRENT": "transcribe=1",
}


@contextmanager
def served(data: Path, *flags: str, **environment: str) -> Iterator[ServerProcess]:
    with ServerProcess(data, *(flags or TOY), environment={**ENVIRONMENT, **environment}) as server:
        yield server


def make_clients(data: Path, **roles: str) -> dict[str, str]:
    """Clients (name=role) in a database that no server holds; name -> key."""
    data.mkdir(parents=True, exist_ok=True)
    database = Database.open(data)
    try:
        return {
            name: database.submit(lambda conn, n=name, r=role: keys.create_client(conn, n, r)[1]).result()
            for name, role in roles.items()
        }
    finally:
        database.close()


def caller(server: ServerProcess, key: str | None = None) -> httpx.Client:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=DEADLINE_S)


def upload(api: httpx.Client, file: Path, **form: str) -> dict[str, Any]:
    with file.open("rb") as opened:
        answer = api.post("/v1/jobs", files={"file": (file.name, opened)}, data=form)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def long_file(folder: Path, copies: int = 10) -> Path:
    """The longest recording several times over: a job of many seconds."""
    path = folder / f"long-{copies}.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, BYTES_PER_SAMPLE, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(samples_of(TOY_AUDIO / "en_long_50s.flac").tobytes() * copies)
    return path


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def running_child(server: ServerProcess, job_id: str) -> psutil.Process:
    """The process of a job that is in its work."""

    def found() -> psutil.Process | None:
        job = server.get(f"/v1/jobs/{job_id}")
        assert job["state"] in ("queued", "running"), job
        return server.children().get("job") if job["progress"].get("step") == "transcribe" else None

    child: psutil.Process = wait_for(found, DEADLINE_S, "the job is in its middle")
    return child


def accepted_samples(server: ServerProcess, call_id: str) -> int:
    """What the track log of a call's one stream holds."""
    folders = list((server.data / "live" / call_id).glob("*"))
    return logged_samples(server.data / "live", call_id, folders[0].name) if folders else 0


def recording(name: str) -> Pcm:
    return samples_of(TOY_AUDIO / name)


def says(text: str, reference: str) -> bool:
    """Whether `text` is `reference`, but for a word that the toy model may lose or mishear; none is said twice."""
    found = compare(reference, text)
    return found.errors <= 1 and found.doubled == 0 and text.split()[-1] == reference.split()[-1]


def options(**chosen: Any) -> dict[str, Any]:
    return {"uid": "test", "task": "transcribe", "model": "small", "language": "en", "audio_format": "int16", **chosen}


@dataclass
class Talk:
    """One connection that speaks WhisperLive's protocol, and all that the server said on it."""

    connection: ClientConnection
    said: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, pcm: Pcm, frame_bytes: int = FRAME_BYTES) -> None:
        raw = pcm.tobytes()
        for at in range(0, len(raw), frame_bytes):
            await self.connection.send(raw[at : at + frame_bytes])

    async def end(self) -> None:
        await self.connection.send(b"END_OF_AUDIO")

    async def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first message from now on that meets `condition`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: dict[str, Any] = json.loads(await self.connection.recv())
                self.said.append(message)
                if condition(message):
                    return message

    async def until_closed(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(DEADLINE_S):
            async for frame in self.connection:
                self.said.append(json.loads(frame))
        return self.said

    @property
    def call_id(self) -> str:
        return next(str(message["call_id"]) for message in self.said if "call_id" in message)

    @property
    def completed(self) -> list[dict[str, Any]]:
        """Every completed segment as it was sent first, in order."""
        first: dict[str, dict[str, Any]] = {}
        for message in self.said:
            for segment in message.get("segments", ()):
                if segment["completed"]:
                    first.setdefault(segment["start"], segment)
        return list(first.values())

    @property
    def text(self) -> str:
        return " ".join(" ".join(segment["text"] for segment in self.completed).split())


@asynccontextmanager
async def connected(server: ServerProcess, url: str = "", **how: Any) -> AsyncIterator[Talk]:
    async with connect(server.live_url + url, compression=None, open_timeout=DEADLINE_S, **how) as connection:
        yield Talk(connection)


@asynccontextmanager
async def talking(
    server: ServerProcess, url: str = "", how: dict[str, Any] | None = None, **chosen: Any
) -> AsyncIterator[Talk]:
    """A stream that is ready for audio."""
    async with connected(server, url, **(how or {})) as talk:
        await talk.connection.send(json.dumps(options(**chosen)))
        await talk.until(lambda message: message.get("message") == "SERVER_READY")
        yield talk


def has_completed(message: dict[str, Any]) -> bool:
    return any(segment["completed"] for segment in message.get("segments", ()))


SILENCE_1S: Pcm = np.zeros(SAMPLE_RATE, np.int16)
