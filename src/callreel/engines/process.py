"""The engine child: one model, one class (live or batch), spoken to over a Unix socket.

    python -m callreel.engines.process LISTENING_FD SPEC_JSON NICE

The listening socket belongs to the parent: while a child is started again, callers wait in its backlog.
The child ends when its standard input, which the parent holds open, closes: also when the parent is killed.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading

import msgspec

from callreel.engines import frames
from callreel.engines.base import Engine, EngineSpec
from callreel.engines.catalogue import load
from callreel.errors import CallreelError

log = logging.getLogger("callreel.engine")


def end_with_parent() -> None:
    """End this process at once when standard input closes. Its work is done again by whoever asked for it."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="parent", daemon=True).start()


class EngineServer:
    """Answers decode requests, at most `threads` at a time, however many connections ask."""

    def __init__(self, spec: EngineSpec) -> None:
        self._slots = threading.Semaphore(spec.threads)
        self._engine: Engine | None = None
        try:
            self._engine = load(spec)
            self.hello = frames.Hello(self._engine.name, self._engine.model, self._engine.capabilities)
        except CallreelError as error:
            log.error("engine %s %s: %s", spec.engine, spec.model, error)
            self.hello = frames.Hello(error=error.as_dict())
        except Exception as error:  # ending here would leave the callers waiting for a child that always ends
            log.exception("engine %s %s", spec.engine, spec.model)
            self.hello = frames.Hello(error=CallreelError(f"{type(error).__name__}: {error}").as_dict())

    def serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(frames.pack(self.hello))
                while True:
                    request = msgspec.msgpack.decode(frames.receive(connection), type=frames.Request)
                    connection.sendall(frames.pack(self._answer(request)))
            except ConnectionError:
                return  # the caller has gone; what it asked for is not wanted any more
            except (msgspec.DecodeError, CallreelError) as error:
                log.warning("a connection that does not speak our protocol: %s", error)

    def _answer(self, request: frames.Request) -> frames.Answer:
        if self._engine is None:
            return frames.Answer(error=self.hello.error)
        try:
            with self._slots:
                return frames.Answer(self._engine.decode(request.as_windows(), request.options))
        except CallreelError as error:
            return frames.Answer(error=error.as_dict())
        except Exception as error:  # whatever the library raises: the caller must hear of it, the child lives on
            log.exception("decode of %d windows failed", len(request.windows))
            return frames.Answer(error=CallreelError(f"{type(error).__name__}: {error}").as_dict())


def main() -> None:
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    fd, spec, nice = sys.argv[1:]
    if int(nice):
        os.nice(int(nice))
    listener = socket.socket(fileno=int(fd))
    listener.setblocking(True)
    EngineServer(msgspec.json.decode(spec, type=EngineSpec)).serve(listener)


if __name__ == "__main__":
    main()
