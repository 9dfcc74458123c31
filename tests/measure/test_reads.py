from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from callreel.accounts import keys
from callreel.calls import store as calls
from callreel.measure import reads
from callreel.measure.reads import _Answer, _client, _facts, _filled, _Reader
from callreel.storage.database import Database
from callreel.transcripts import store as transcripts

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def read_from(answer: Callable[[int], bytes], *paths: str) -> list[bool]:
    """What a reader says of a server that gives `answer(number of the request)`."""
    n = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n
        while head := await reader.readuntil(b"\r\n\r\n"):
            assert head.startswith(b"GET /")
            writer.write(answer(n))
            n += 1
            await writer.drain()
            if not answer(n - 1):
                writer.close()
                return

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader = _Reader(server.sockets[0].getsockname()[1])
        found = [await reader.get(path) for path in paths]
        await reader.close()
    return found


def test_a_reader_keeps_its_connection_and_knows_what_failed() -> None:
    refused = OK.replace(b"200 OK", b"429 Too Many Requests")
    answers = [OK, refused, OK, b"", OK, b"HTTP/1.1 200 OK\r\n\r\n", OK]
    found = asyncio.run(read_from(lambda n: answers[n], *["/x"] * len(answers)))
    assert found == [True, False, True, False, True, False, True]


def test_an_answer_that_does_not_come_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "ANSWER_WITHIN_S", 0.05)
    assert asyncio.run(read_from(lambda n: OK[:-1], "/x")) == [False]


def test_nobody_there_is_a_failure(unused_tcp_port: int) -> None:
    assert asyncio.run(_Reader(unused_tcp_port).get("/x")) is False


@pytest.fixture
def unused_tcp_port() -> int:
    from callreel.measure.harness import free_port

    return free_port()


def test_a_client_asks_at_its_moments_for_all_paths_in_turn() -> None:
    asked: list[str] = []

    async def run() -> list[_Answer]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while not reader.at_eof():
                try:
                    asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
                except asyncio.IncompleteReadError:
                    break
                writer.write(OK)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port, now = server.sockets[0].getsockname()[1], reads.time.monotonic()
            paths = [("a", ["/a1", "/a2"]), ("b", ["/b"]), ("c", ["/c"])]
            return await _client(port, paths, now, 100.0, now + 0.055, 1)

    answers = asyncio.run(run())
    assert [answer.path for answer in answers] == ["b", "c", "a", "b", "c", "a"]
    assert asked[0] == "/b" and len(asked) == 7  # one read before that does not count
    assert all(answer.ok and answer.late_s > 0 for answer in answers)


def test_facts() -> None:
    answers = [_Answer("/x", i / 100, ok=i != 7) for i in range(101)]
    assert _facts(answers) == {
        "number": 101,
        "failed": 1,
        "p50_s": 0.5,
        "p95_s": 0.95,
        "p99_s": 0.99,
        "max_s": 1.0,
    }


def test_there_is_something_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "CALLS", 3)
    ids, words = _filled(tmp_path)
    assert len(set(ids)) == 3 and len(set(words)) == 1000
    database = Database.open(tmp_path)
    try:
        client = database.submit(keys.ensure_local_client).result()
        assert {call.id for call in database.submit(partial(calls.list_calls, client_id=client)).result().data} == {
            *ids
        }
        current = database.submit(partial(transcripts.current_transcript, call_id=ids[0])).result()
        assert current is not None and current.state == "done"
        stored = database.submit(partial(transcripts.segments, transcript_id=current.id)).result()
        assert len(stored) == reads.SEGMENTS and {word for s in stored for word in s.text.split()} <= {*words}
    finally:
        database.close()


@pytest.mark.slow
def test_reading_beside_a_transcription(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "CALLS", 5)
    monkeypatch.setattr(reads, "JOB_S_A_SECOND", 100.0)
    result = reads.run(clients=3, rate=5.0, seconds=1.0, size="tiny")
    assert result["all"]["number"] == 15
    assert set(result["paths"]) == {kind for kind, _ in reads._paths("", [], [])}
    assert result["transcription"]["engine_cores"] > 0
    assert "target: p99 200 ms" in reads.report(result)
