"""Engine children on one listening socket, kept alive the way the server keeps them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec
import psutil

from callreel.engines.base import EngineSpec
from tests.engines import fake_engines

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0
SCRIPTED = EngineSpec(fake_engines.NAME, "any", "/nowhere", threads=2)


def environment() -> dict[str, str]:
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        threading.Event().wait(0.005)


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # nobody may be there to reap it
    except psutil.NoSuchProcess:
        return True


class EngineChildren:
    """One child at a time; when it dies another is started on the same listener. `deaths` counts them."""

    def __init__(self, folder: Path, spec: EngineSpec = SCRIPTED) -> None:
        self.path = folder / "engine.sock"
        self.log = folder / "engine.log"
        self.deaths = 0
        self._spec = spec
        self._ending = False
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self.process = self._start()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def __enter__(self) -> EngineChildren:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._ending = True
            _let_go(self.process)
        self._keeper.join(DEADLINE_S)
        assert not self._keeper.is_alive(), "the engine child did not end when its standard input was closed"
        self._listener.close()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    def kill_and_wait(self) -> None:
        """Kill the child; returns once the next one has been started."""
        before = self.deaths
        self.kill()
        wait_until(lambda: self.deaths > before, "another child")

    def _start(self) -> subprocess.Popen[bytes]:
        fd = self._listener.fileno()
        command = [sys.executable, "-m", "callreel.engines.process", str(fd), msgspec.json.encode(self._spec), "0"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=log, pass_fds=[fd], cwd=ROOT, env=environment()
            )

    def _keep(self) -> None:
        while True:
            self.process.wait()
            with self._lock:
                _let_go(self.process)
                if self._ending:
                    return
                self.process = self._start()
                self.deaths += 1


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
