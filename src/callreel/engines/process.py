"""The engine child: one model, one class (live or batch), spoken to over a Unix socket.

    python -m callreel.engines.process LISTENING_FD SPEC_JSON NICE

The listening socket belongs to the parent: while a child is started again, callers wait in its backlog.
The child ends when its standard input, which the parent holds open, closes: also when the parent is killed. Its
memory is given back by ending it, which is the one way that leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time

import msgspec

from callreel import logs
from callreel.engines import frames
from callreel.engines.base import Engine, EngineSpec
from callreel.engines.calls import Call, Calls
from callreel.engines.catalogue import load
from callreel.engines.usage import Meter, peak_rss_bytes
from callreel.errors import CallreelError

log = logging.getLogger("callreel.engine")

ABANDONED = 75  # the exit status of a child whose callers had all hung up: no failure, start it again when it is needed


def end_with_parent() -> None:
    """End this process at once when standard input closes. Its work is done again by whoever asked for it.

    Nobody may write to standard input from here on.
    """

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    # The kernel's SIGIO, whose default is to terminate, needs no interpreter: some libraries hold it for seconds. It
    # comes for a change after this line; the thread sees what was before, and all of it on systems that ignore SIGIO.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=wait, name="parent", daemon=True).start()


class EngineServer:
    """Answers decode requests, as many at a time as the engine runs side by side, however many connections ask."""

    def __init__(self, spec: EngineSpec) -> None:
        self._engine: Engine | None = None
        n_slots = spec.threads
        try:
            self._engine = load(spec)
            self.hello = frames.Hello(self._engine.name, self._engine.model, self._engine.capabilities)
            n_slots = max(n_slots, self._engine.capabilities.parallel)
        except CallreelError as error:
            log.error("engine %s %s: %s", spec.engine, spec.model, error)
            self.hello = frames.Hello(error=error.as_dict())
        except Exception as error:  # ending here would leave the callers waiting for a child that always ends
            log.exception("engine %s %s", spec.engine, spec.model)
            self.hello = frames.Hello(error=CallreelError(f"{type(error).__name__}: {error}").as_dict())
        self._slots = threading.Semaphore(n_slots)
        self._meter = Meter(self._cpu_s)
        self._calls = Calls(_abandon)

    def serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        """Answer on one connection until its other end closes."""
        with connection:
            try:
                connection.sendall(frames.pack(self.hello))
                while True:
                    request = msgspec.msgpack.decode(frames.receive(connection), type=frames.Request)
                    with self._calls.running(connection) as call:
                        answer = self._answer(request, call)
                    connection.sendall(frames.pack(answer))
            except ConnectionError:
                return  # the caller has gone; what it asked for is not wanted any more
            except (msgspec.DecodeError, CallreelError) as error:
                log.warning("a connection that does not speak our protocol: %s", error)

    def _answer(self, request: frames.Request, call: Call) -> frames.Answer:
        if self._engine is None:
            return frames.Answer(error=self.hello.error)
        with self._slots:
            if not call.is_wanted():  # hung up while it waited
                return frames.Answer()
            with self._meter.running() as bill:
                answer = self._decode(self._engine, request)
            answer.cpu_s = bill.cpu_s
            answer.peak_rss_bytes = peak_rss_bytes() + int(getattr(self._engine, "peak_rss_bytes", 0))
            return answer

    def _decode(self, engine: Engine, request: frames.Request) -> frames.Answer:
        try:
            return frames.Answer(engine.decode(request.as_windows(), request.options))
        except CallreelError as error:
            return frames.Answer(error=error.as_dict())
        except Exception as error:  # whatever the library raises: the caller must hear of it, the child lives on
            log.exception("decode of %d windows failed", len(request.windows))
            return frames.Answer(error=CallreelError(f"{type(error).__name__}: {error}").as_dict())

    def _cpu_s(self) -> float:
        """Of this process, and of those that an engine has of its own."""
        return time.process_time() + float(getattr(self._engine, "cpu_s", 0.0))


def _abandon() -> None:
    log.warning("all callers have hung up, and a decode goes on: ending, to be started again")
    os._exit(ABANDONED)


def main() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the whole group: the parent ends us when it ends
    logs.inherit()
    fd, spec, nice = sys.argv[1:]
    if int(nice):
        os.nice(int(nice))
    listener = socket.socket(fileno=int(fd))
    listener.setblocking(True)
    EngineServer(msgspec.json.decode(spec, type=EngineSpec)).serve(listener)


if __name__ == "__main__":
    main()
