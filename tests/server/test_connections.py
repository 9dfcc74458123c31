"""HTTP connections whose peers are slow, silent or endless, over real sockets and with short patience."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import uvicorn
import uvloop

from callreel.measure.harness import wait_for
from callreel.server.connections import MOST_CONNECTIONS, MOST_PIPELINED, BoundedProtocol, room
from callreel.server.serve import _Http

WITHIN_S = 20.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
GET_HUGE = b"GET /huge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
PIECES, PIECE = 300, bytes(100_000)  # of a huge answer: more than the buffers of the system hold


class Impatient(BoundedProtocol):
    head_s, head_bytes, stalled_s, least_bytes, look_s = 0.3, 2000, 0.4, 100, 0.02


class Patient(BoundedProtocol):
    look_s = 0.02


class App:
    """Answers with the length of the body, and counts who hung up in its middle; /huge has a long answer."""

    def __init__(self) -> None:
        self.hung_up = self.ended = 0
        self.sent_bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        read, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.hung_up += 1
                return
            read, more = read + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/huge":
            for _ in range(PIECES):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
                self.sent_bytes += len(PIECE)
        await send({"type": "http.response.body", "body": str(read).encode()})
        self.ended += 1


class Site:
    """A server in a thread of its own, and connections to it."""

    def __init__(self, protocol: type[BoundedProtocol], most: int | None) -> None:
        self.app = App()
        config = uvicorn.Config(
            self.app,
            http=protocol,
            lifespan="off",
            log_config=None,
            limit_concurrency=most,
            timeout_graceful_shutdown=1,
        )
        self._server = _Http(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=lambda: uvloop.run(self._server.serve([self._listener])))
        self._opened = ExitStack()

    def __enter__(self) -> Site:
        self._thread.start()
        wait_for(lambda: self._server.started, WITHIN_S, "it listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        self._server.should_exit = True
        self._thread.join()

    def open(self) -> socket.socket:
        return self._opened.enter_context(
            socket.create_connection(self._listener.getsockname(), WITHIN_S)  # of it and of each read
        )

    def said(self, *parts: bytes, pause_s: float = 0.0) -> bytes:
        """All that it answers to these bytes until it closes the connection."""
        connection = self.open()
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
        return rest_of(connection)


def rest_of(connection: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            answer += piece
    return answer


@contextmanager
def serving(protocol: type[BoundedProtocol], most: int | None = None) -> Iterator[Site]:
    with Site(protocol, most) as site:
        yield site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving(Impatient) as site:
        yield site


def test_a_head_that_does_not_come_is_not_waited_for(site: Site) -> None:
    assert site.said() == b""
    assert b" 408 " in site.said(GET[:-2])


def test_bytes_one_by_one_do_not_buy_a_head_more_time(site: Site) -> None:
    began = time.monotonic()
    site.said(b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 30, pause_s=0.02)
    assert Impatient.head_s <= time.monotonic() - began < WITHIN_S


@pytest.mark.parametrize(
    "endless",
    [
        [b"GET /" + b"a" * 3000],
        [b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 500],
        [b"GET / HTTP/1.1\r\na: ", *[b"b" * 500] * 6],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", *[b"t: b\r\n"] * 500],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nt: ", *[b"b" * 500] * 6],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1;x=", *[b"b" * 500] * 6],
    ],
    ids=["path", "headers", "header", "trailers", "trailer", "extension"],
)
def test_nothing_but_a_body_may_be_long(site: Site, endless: list[bytes]) -> None:
    hung_up, ended = site.app.hung_up, site.app.ended
    answer = site.said(*endless)
    assert answer == b"" or b" 431 " in answer  # the answer may be lost where we go on sending
    if endless[0].startswith(POST):
        wait_for(lambda: site.app.hung_up == hung_up + 1, WITHIN_S, "the request hears of it")
    assert site.app.ended == ended


def test_a_body_in_many_small_chunks_is_taken(site: Site) -> None:
    answer = site.said(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1;ext=1\r\na\r\n" * 5000, b"0\r\n\r\n")
    assert b" 200 " in answer and b"5000" in answer


@pytest.mark.parametrize("trickle", [b"", b"a"], ids=["silent", "trickles"])
def test_a_body_that_does_not_come_is_hung_up_on(site: Site, trickle: bytes) -> None:
    hung_up = site.app.hung_up
    connection = site.open()
    connection.sendall(POST + b"Content-Length: 100000\r\n\r\n")

    def cut() -> bool:
        with suppress(ConnectionError):
            connection.sendall(trickle)
        return site.app.hung_up > hung_up

    wait_for(cut, WITHIN_S, "the connection is cut")


def test_a_body_that_is_slow_but_comes_is_waited_for(site: Site) -> None:
    answer = site.said(POST + b"Content-Length: 1500\r\n\r\n", *[b"a" * 60] * 25, pause_s=0.05)
    assert b" 200 " in answer and answer.endswith(b"1500\r\n0\r\n\r\n")


def test_who_does_not_read_an_answer_is_hung_up_on(site: Site) -> None:
    ended = site.app.ended
    connection = site.open()
    connection.sendall(GET_HUGE)
    wait_for(lambda: site.app.ended == ended + 1, WITHIN_S, "the request does not wait for ever")
    assert len(rest_of(connection)) < PIECES * len(PIECE)


def test_who_reads_slowly_gets_all_of_it(site: Site) -> None:
    connection = site.open()
    connection.sendall(GET_HUGE)
    got, began = 0, time.monotonic()
    while piece := connection.recv(1 << 20):
        got += len(piece)
        time.sleep(0.04)
    assert got > PIECES * len(PIECE) and time.monotonic() - began > 2 * Impatient.stalled_s


def test_requests_may_be_sent_ahead_but_not_without_end(site: Site) -> None:
    assert site.said(GET * 5 + LAST_GET).count(b" 200 OK") == 6
    assert site.said(GET * (MOST_PIPELINED + 50)).count(b" 200 OK") < MOST_PIPELINED


def test_what_is_no_http_is_told_so_in_our_words(site: Site) -> None:
    answer = site.said(b"\x16\x03\x01\x02\x00\x01\x00\x01")
    assert b" 400 " in answer and b'"hint"' in answer


def test_who_says_nothing_gives_way_to_who_asks() -> None:
    with serving(Patient, most=4) as site:
        silent = [site.open() for _ in range(4)]
        assert all(b" 200 " in site.said(LAST_GET) for _ in range(3))
        assert rest_of(silent[0]) == b""  # the oldest first


def test_all_at_work_means_a_refusal() -> None:
    with serving(Patient, most=2) as site:
        busy = [site.open() for _ in range(2)]
        for connection in busy:
            connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
            assert b" 100 " in connection.recv(100)  # it is in the request's hands
        refused = site.said()
        assert b" 503 " in refused and b'"hint"' in refused
        for connection in busy:
            connection.sendall(bytes(1000))
            assert b" 200 " in rest_of(connection)


def test_connections_leave_room_for_other_files() -> None:
    assert 0 < room() <= MOST_CONNECTIONS
    assert room() * 2 <= resource.getrlimit(resource.RLIMIT_NOFILE)[0]
