"""Hostile peers, all at once, on a real server: who behaves is answered meanwhile, and memory is bounded."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from callreel.server.connections import BoundedProtocol
from tests.server.helpers import TOY_AUDIO, caller, served, upload

HALF_OPEN, SLOW, STREAMS, TRICKLES = 200, 50, 20, 20
HEALTH_S = 0.2  # the middle answer; the machine may be busy with other things
MIB = 1 << 20
POST = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with served(tmp_path_factory.mktemp("peers")) as server:
        yield server


def test_hostile_peers_cost_little_and_others_nothing(server: ServerProcess) -> None:
    process = psutil.Process(server.pid)
    with ExitStack() as stack, caller(server) as api:
        call = upload(api, TOY_AUDIO / "en_short.wav")
        server.finished_job(call["id"])
        before = process.memory_info().rss

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30))

        half_open = [connect() for _ in range(HALF_OPEN)]
        slow = [connect() for _ in range(SLOW)]
        for connection in slow:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(STREAMS):
            watching = connect()
            watching.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET /v1/calls/{call['call_id']}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
            watching.sendall(head.encode())  # and never reads
        trickles = [connect() for _ in range(TRICKLES)]
        for connection in trickles:
            connection.sendall(POST + b"Content-Length: 100000\r\n\r\n" + PART)
        took = []
        began = time.monotonic()
        while time.monotonic() - began < BoundedProtocol.head_s + 2:
            asked = time.monotonic()
            assert api.get("/health").status_code == 200
            took.append(time.monotonic() - asked)
            for connection in (*slow, *trickles):
                with suppress(OSError):
                    connection.sendall(b"a: b\r\n")
            for i in range(20):  # what the watchers would have to read
                api.patch(f"/v1/calls/{call['call_id']}", json={"title": f"{i} " + "x" * 150})
        assert statistics.median(took) < HEALTH_S, took
        for connection in (*half_open, *slow):
            connection.settimeout(30)
            with suppress(ConnectionError):
                while connection.recv(4096):
                    pass
        assert process.memory_info().rss - before < 60 * MIB
    wait_for(lambda: not list((server.data / "tmp").iterdir()), 30, "nothing of the uploads is left")
