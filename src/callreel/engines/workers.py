"""Processes of an engine's own, for a library that keeps the interpreter while it decodes.

    python -m callreel.engines.workers CONNECTED_FD SPEC_JSON

In one process such decodes would run one after the other, and nobody would notice a caller who hangs up meanwhile.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence

import msgspec

from callreel.engines import frames
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, EngineSpec, Window
from callreel.engines.process import EngineServer, end_with_parent
from callreel.errors import EngineCrashed

MAX_CRASHES = 3  # times a worker may die under the same windows before they are given up


class _Worker:
    """One process with one engine in it. It ends when its standard input closes: with us, however we end."""

    def __init__(self, spec: EngineSpec) -> None:
        self.connection, theirs = socket.socketpair()
        fd = theirs.fileno()
        command = [sys.executable, "-m", "callreel.engines.workers", str(fd), msgspec.json.encode(spec).decode()]
        with theirs:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(fd,))
        try:
            hello = msgspec.msgpack.decode(frames.receive(self.connection), type=frames.Hello)
            if hello.error is not None:
                raise frames.error_from(hello.error)
        except BaseException:
            self.end()
            raise
        self.peak_rss_bytes = 0

    def ask(self, request: bytes) -> frames.Answer:
        """Raises OSError when the process has died."""
        self.connection.sendall(request)
        return msgspec.msgpack.decode(frames.receive(self.connection), type=frames.Answer)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.connection.close()


class Workers:
    """An engine whose decodes run in up to `spec.threads` processes, each started when it is first needed.

    `spec.engine` is loaded in each of them. `cpu_s` is what all of them used for calls, `peak_rss_bytes` the most
    that those alive had in RAM.
    """

    def __init__(self, name: str, model: str, capabilities: Capabilities, spec: EngineSpec) -> None:
        self.name, self.model, self.capabilities = name, model, capabilities
        self.cpu_s = 0.0
        self._spec = spec
        self._slots = threading.Semaphore(spec.threads)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        weakref.finalize(self, _end, self._idle)

    @property
    def peak_rss_bytes(self) -> int:
        with self._lock:
            return sum(worker.peak_rss_bytes for worker in self._idle)

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        """As `Engine.decode`. Raises EngineCrashed for windows under which worker after worker dies."""
        request = frames.pack(frames.Request.of(windows, options))
        with self._slots:
            for _ in range(MAX_CRASHES):
                try:
                    worker = self._take()
                except ConnectionError:
                    continue  # it died while it started
                try:
                    answer = worker.ask(request)
                except OSError:
                    worker.end()
                    continue
                except BaseException:
                    worker.end()  # interrupted half way: its next answer would be this one's
                    raise
                with self._lock:
                    self.cpu_s += answer.cpu_s
                    worker.peak_rss_bytes = answer.peak_rss_bytes
                    self._idle.append(worker)
                return frames.decoded(answer)
        raise EngineCrashed()

    def close(self) -> None:
        """End the processes that are idle; others are started when they are needed again."""
        with self._lock:
            _end(self._idle)

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Worker(self._spec)


def _end(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()


def main() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the whole group: the parent ends us when it ends
    fd, spec = sys.argv[1:]
    EngineServer(msgspec.json.decode(spec, type=EngineSpec)).talk(socket.socket(fileno=int(fd)))


if __name__ == "__main__":
    main()
