"""HTTP connections, bounded: what a peer may cost us before it has asked for anything, and after it stops listening."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from http import HTTPStatus
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from callreel.errors import InvalidInput

MOST_CONNECTIONS = 1024
FILES = 65536  # open at once, where the system lets a process have so many
KEEP_ALIVE_S = 75  # longer than proxies keep theirs, 60 s: one that is closed over a request on its way is an error
MOST_PIPELINED = 16  # requests sent ahead of their answers; each waits in memory


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with limits for peers that are slow, silent or endless.

    `head_s`: a head, from its first byte or the connection's, must be here within that. `head_bytes`: of a head, a
    chunk's extensions, trailers. `stalled_s`: a body must bring `least_bytes` in such a time, and an answer must be
    taken, or the connection is cut; the request sees that its client hung up. Beyond `limit_concurrency` connections
    those that wait for a head give way, the oldest first.
    """

    head_s = 10.0
    head_bytes = 64 << 10
    stalled_s = 60.0
    least_bytes = 1 << 10
    look_s = 1.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._most, self.limit_concurrency = config.limit_concurrency, None  # uvicorn's own would refuse /health too
        self._watch: asyncio.TimerHandle | None = None
        self._silent_since: float | None = None  # it owes us a head since then; None: it has sent its last one
        self._idle_since = 0.0  # without a request since then
        self._quiet_bytes = 0  # came since the last byte of a body or the end of a request
        self._body_bytes, self._body_since = 0, 0.0  # came since then
        self._unsent_bytes, self._unsent_since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._silent_since = self._idle_since = time.monotonic()
        self._watch = self.loop.call_later(self.look_s, self._look)
        if self._most is not None and len(self.connections) > self._most and not self._make_room():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections", "Try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._stop_watching()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        self._quiet_bytes += len(data)
        self._body_bytes += len(data)
        super().data_received(data)
        if self._quiet_bytes > self.head_bytes and not self.transport.is_closing():
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of this request is too long", "Send less"
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._silent_since = time.monotonic()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self.transport.abort()
            return
        super().on_headers_complete()
        self._silent_since = None
        self._body_bytes, self._body_since = 0, time.monotonic()

    def on_body(self, body: bytes) -> None:
        self._quiet_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._quiet_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._idle_since = time.monotonic()
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._unsent_bytes = 0
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "This is no HTTP request", "Send HTTP/1.1")

    def _look(self) -> None:
        """Cut the connection if its peer does nothing for too long; else look again in a while."""
        now = time.monotonic()
        if self._silent_since is not None and now - self._silent_since > self.head_s:
            self._silent_since = None
            if self._quiet_bytes == 0:  # it never said a word
                self.transport.close()
            else:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The head of this request came too slowly", "Send it again")
        if self._body_stalls(now) or self._answer_stalls(now):
            self.transport.abort()
        self._watch = self.loop.call_later(self.look_s, self._look)

    def _body_stalls(self, now: float) -> bool:
        waiting = self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete
        if not waiting or self.flow.read_paused:
            self._body_since = now
            return False
        if now - self._body_since <= self.stalled_s:
            return False
        stalls = self._body_bytes < self.least_bytes
        self._body_bytes, self._body_since = 0, now
        return stalls

    def _answer_stalls(self, now: float) -> bool:
        """Also of a connection that is closed already, which waits for its last bytes to go."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or self._unsent_bytes == 0 or unsent < self._unsent_bytes:
            self._unsent_bytes, self._unsent_since = unsent, now
            return False
        return now - self._unsent_since > self.stalled_s

    def _make_room(self) -> bool:
        """End the connection that has waited longest for a request; False if all are at work."""
        idle = [c for c in self.connections if c is not self and isinstance(c, BoundedProtocol) and c._is_idle()]
        if not idle:
            return False
        min(idle, key=lambda connection: connection._idle_since).transport.abort()
        return True

    def _is_idle(self) -> bool:
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def _refuse(self, status: HTTPStatus, message: str, hint: str) -> None:
        """Answer outside of any request, and close."""
        body = json.dumps({"error": InvalidInput(message, hint=hint).as_dict()}).encode()
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}".encode(),
            b"content-type: application/json",
            f"content-length: {len(body)}".encode(),
            b"connection: close",
            *(name + b": " + value for name, value in self.server_state.default_headers),
        ]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


def room() -> int:
    """How many connections at once: each is an open file, and half of those are for everything else.

    Raises this process's own limit of open files as far as the system lets it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft == resource.RLIM_INFINITY or most <= soft:
        most = soft
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return MOST_CONNECTIONS if most == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, most // 2)
