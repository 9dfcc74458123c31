"""A real server of our own, started for a measurement or a test, and paced clients that talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from websockets.asyncio.client import ClientConnection, connect

from callreel.audio.decode import decode
from callreel.audio.pcm import Pcm, seconds
from callreel.errors import CallreelError
from callreel.server.supervision import BATCH_NICE

CHUNK = 4096  # samples a frame, as WhisperLive's client sends: 256 ms
START_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0
NO_CACHE = {"CALLREEL_JOBS_CACHE_TTL_S": "0"}  # work that is measured is to be done each time
UPLOAD_WITHIN_S = 120.0


class MeasureFailed(CallreelError):
    """What was to be measured did not happen."""

    code = "measure_failed"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Any, within_s: float, what: str) -> Any:
    """The first true value of `condition()`. Raises TimeoutError that names `what`."""
    deadline = time.monotonic() + within_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.02)


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds that a process has used so far."""
    used = process.cpu_times()
    return float(used.user + used.system)


class ServerProcess:
    """`callreel serve` on free loopback ports over `data`; the context ends it and all that it started."""

    def __init__(self, data: Path, *flags: str, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.port, self.live_port = free_port(), free_port()
        self._flags, self._environment = flags, environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def live_url(self) -> str:
        return f"ws://127.0.0.1:{self.live_port}"

    def start(self) -> None:
        """Start and wait until it is ready."""
        self.data.mkdir(parents=True, exist_ok=True)
        ports = ("--port", str(self.port), "--live-port", str(self.live_port))
        with (self.data / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "callreel", "serve", "--data-dir", str(self.data), *ports, *self._flags],
                env={**os.environ, **NO_CACHE, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._is_ready, START_WITHIN_S, "the server is ready")

    def stop(self) -> None:
        """End it politely; by force if that takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9 of the server process alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def children(self) -> dict[str, psutil.Process]:
        """Its child processes by role: live, batch, job."""
        found = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    line = " ".join(child.cmdline())
                    if "callreel.engines.process" in line:
                        found["batch" if line.endswith(f" {BATCH_NICE}") else "live"] = child
                    elif "callreel.tasks.child" in line:
                        found["job"] = child
        return found

    def log(self) -> str:
        return (self.data / "serve.log").read_text()

    def get(self, path: str) -> Any:
        """The JSON (or text) at a path of the API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            body = answer.read().decode()
            return json.loads(body) if "json" in answer.headers["Content-Type"] else body

    def transcribe(self, file: Path, **form: str) -> dict[str, Any]:
        """Upload a file, which never is in memory; the job as it was answered."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in form.items()
        ]
        disposition = f'Content-Disposition: form-data; name="file"; filename="{file.name}"'
        head = b"".join([*parts, f"--{boundary}\r\n{disposition}\r\n\r\n".encode()])
        tail = f"\r\n--{boundary}--\r\n".encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=UPLOAD_WITHIN_S)
        with contextlib.closing(connection), file.open("rb") as content:
            connection.putrequest("POST", "/v1/jobs")
            connection.putheader("Content-Type", f"multipart/form-data; boundary={boundary}")
            connection.putheader("Content-Length", str(len(head) + file.stat().st_size + len(tail)))
            connection.endheaders(head)
            connection.sock.sendfile(content)
            connection.send(tail)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status >= 400:
                raise MeasureFailed(f"The upload was answered {answer.status}: {body.decode(errors='replace')}")
            job: dict[str, Any] = json.loads(body)
            return job

    def finished_job(self, job_id: str, within_s: float = 60.0) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            job: dict[str, Any] = self.get(f"/v1/jobs/{job_id}")
            return job if job["state"] in ("succeeded", "failed", "cancelled") else None

        job: dict[str, Any] = wait_for(ended, within_s, f"job {job_id} ends")
        return job

    def call_of(self, external_id: str) -> dict[str, Any]:
        call: dict[str, Any] = self.get(f"/v1/calls?external_id={external_id}")["data"][0]
        return call

    def finished_call(self, call_id: str, within_s: float = 60.0) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            call: dict[str, Any] = self.get(f"/v1/calls/{call_id}")
            return call if call["state"] in ("done", "failed") else None

        call: dict[str, Any] = wait_for(ended, within_s, f"call {call_id} ends")
        return call

    def text(self, call_id: str) -> str:
        return " ".join(self.get(f"/v1/calls/{call_id}/transcript?format=txt").split())

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended with {self._process.returncode}:\n{self.log()[-2000:]}")
        try:
            return bool(self.get("/ready")["ready"]) and _listens(self.live_port)
        except (urllib.error.URLError, ConnectionError):
            return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(slots=True)
class Played:
    """What one paced stream saw. Times are monotonic seconds; `sent_at[i]` is when frame i had been sent."""

    uid: str
    began: float = 0.0
    sent_at: list[float] = field(default_factory=list)
    received: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    broke_off: bool = False

    @property
    def text(self) -> str:
        """All completed segments, each once, as a client keeps them."""
        kept = {}
        for _, message in self.received:
            for segment in message.get("segments", ()):
                if segment["completed"]:
                    kept[segment["start"]] = segment["text"]
        return " ".join(kept.values())

    def first_seen(self) -> dict[tuple[float, float], float]:
        """(start, end) in stream seconds of each completed segment -> when it came."""
        seen: dict[tuple[float, float], float] = {}
        for at, message in self.received:
            for segment in message.get("segments", ()):
                if segment["completed"]:
                    seen.setdefault((float(segment["start"]), float(segment["end"])), at)
        return seen


async def play(url: str, pcm: Pcm, *, uid: str | None = None, language: str | None = None, pace: float = 1.0) -> Played:
    """Send `pcm` as WhisperLive's client does, in real time over `pace`, then END_OF_AUDIO; wait for the close."""
    played = Played(uid or str(uuid.uuid4()))
    options = {
        "uid": played.uid,
        "task": "transcribe",
        "model": "small",
        "language": language,
        "use_vad": True,
        "audio_format": "int16",
        "send_last_n_segments": 1000,
    }
    try:
        async with connect(url, compression=None, max_size=None, open_timeout=30) as connection:
            await connection.send(json.dumps(options))
            await _until_ready(connection, played)
            reading = asyncio.create_task(_read(connection, played))
            played.began = time.monotonic()
            try:
                for at in range(0, len(pcm), CHUNK):
                    part = pcm[at : at + CHUNK]
                    due = played.began + seconds(at + len(part)) / pace
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    await connection.send(part.tobytes())
                    played.sent_at.append(time.monotonic())
                await connection.send(b"END_OF_AUDIO")
                await reading
            finally:
                reading.cancel()
    except OSError:
        played.broke_off = True
    except Exception as error:
        if type(error).__module__.split(".")[0] != "websockets":
            raise
        played.broke_off = True
    return played


async def _until_ready(connection: ClientConnection, played: Played) -> None:
    while True:
        message = json.loads(await connection.recv())
        played.received.append((time.monotonic(), message))
        if message.get("message") == "SERVER_READY":
            return


async def _read(connection: ClientConnection, played: Played) -> None:
    async for frame in connection:
        played.received.append((time.monotonic(), json.loads(frame)))


def samples_of(file: Path) -> Pcm:
    """A whole file at 16 kHz mono, in memory."""
    return np.concatenate(list(decode(file)))
