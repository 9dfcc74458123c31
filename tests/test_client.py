"""The client: against a real server, and against ones that break off, babble, or are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import callreel
from callreel.client import Client
from callreel.errors import (
    CallreelError,
    Cancelled,
    InvalidInput,
    NotFound,
    QueueFull,
    ServerUnreachable,
    Unauthorized,
    UnreadableMedia,
)
from callreel.measure.harness import ServerProcess, free_port
from tests.odd_servers import Answer, answering

DEADLINE_S = 60.0
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{server.port}") as client:
        yield client


def as_json(noun: Any, status: int = 200, **headers: str) -> Answer:
    return status, JSON | headers, json.dumps(noun).encode()


def event(kind: str, data: Any) -> bytes:
    return f"id: 7\nevent: {kind}\ndata: {json.dumps({'type': kind, 'id': 7, 'data': data})}\n\n".encode()


def test_the_package_exports_it_and_imports_it_only_when_wanted() -> None:
    assert callreel.Client is Client
    script = "import sys, callreel; print('httpx' in sys.modules); callreel.Client; print('httpx' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == ["False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = callreel.Nothing  # type: ignore[attr-defined]


def test_a_file_becomes_a_transcript(client: Client, toy_audio: Path, references: dict[str, Any]) -> None:
    seen: list[dict[str, Any]] = []
    job = client.submit(toy_audio / "en_short.wav", language="en", title="Früh/1.wav")
    done = client.wait(job["id"], seen.append, timeout_s=DEADLINE_S)
    assert done["state"] == "succeeded" and seen[0]["id"] == job["id"] and seen[-1] == done
    text = references["en_short.wav"]["tracks"]["mono"]["text"]
    assert text in client.transcript(done["call_id"], "txt")
    assert client.transcript(done["call_id"])["language"] == "en"
    assert client.transcript(done["call_id"], "srt").startswith("1\n")
    assert client.transcript(done["call_id"], "docx").startswith(b"PK")
    call = client.call(done["call_id"])
    assert call["title"] == "1.wav" and call["id"] in [call["id"] for call in client.calls(limit=1)]
    assert job["id"] in [job["id"] for job in client.jobs()]
    assert next(client.call_events(done["call_id"]))["type"] == "segment"


def test_transcribe_is_all_of_it(client: Client, toy_audio: Path) -> None:
    with (toy_audio / "en_digits.flac").open("rb") as opened:
        assert "my phone number is nine four seven" in client.transcribe(opened, "txt")


def test_what_is_said_is_told_found_and_deleted(client: Client, toy_audio: Path) -> None:
    file, options = toy_audio / "sw_short.flac", {"channels": "split", "speakers": ["asha"], "labels": {"team": "a"}}
    job = client.submit(file, idempotency_key="once", **options)
    assert client.submit(file, idempotency_key="once", **options)["id"] == job["id"]
    events = list(client.job_events(job["id"]))
    assert events[-1]["data"]["state"] == "succeeded"
    word = client.transcript(job["call_id"])["segments"][0]["text"].split()[0]
    assert job["call_id"] in [moment["call_id"] for moment in client.search(word)]
    assert client.call(job["call_id"])["labels"] == {"team": "a"}
    client.delete(job["call_id"])
    with pytest.raises(NotFound):
        client.call(job["call_id"])


def test_what_the_server_refuses_has_its_name(client: Client, server: ServerProcess, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.job("none")
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"no sound" * 99)
    with pytest.raises(InvalidInput, match="languag: ") as refused:
        client.submit(noise, languag="en")
    assert refused.value.status == 400 and "docs" in refused.value.hint
    with pytest.raises(UnreadableMedia, match="not a media file"):
        client.transcribe(noise)
    with Client(client.url, "cr_wrong") as stranger, pytest.raises(Unauthorized):
        next(stranger.calls())
    with pytest.raises(FileNotFoundError):
        client.submit(tmp_path / "nothing.wav")


def test_no_server_is_said_so() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as nobody, pytest.raises(ServerUnreachable) as refused:
        nobody.health()
    assert refused.value.transient
    for url in ("http://a:b", "ftp://example.org", "localhost:8125"):
        with pytest.raises(InvalidInput, match="no URL"):
            Client(url)
    with pytest.raises(InvalidInput, match="no API key"):
        Client(key="schlüssel")


def test_how_long_to_wait_is_in_the_error() -> None:
    def full(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return as_json({"error": {"code": "queue_full", "message": "Full."}}, 429, **{"Retry-After": "7"})

    with answering(full) as url, Client(url) as client, pytest.raises(QueueFull) as refused:
        client.health()
    assert refused.value.detail == {"retry_after_s": 7} and refused.value.transient


@pytest.mark.parametrize(
    ("status", "body", "transient"),
    [(502, b"<html>Bad gateway</html>", True), (500, b"[1]", False), (404, b'{"error": "no"}', False)],
)
def test_what_is_not_ours_is_an_error_all_the_same(status: int, body: bytes, transient: bool) -> None:
    with answering(lambda *_: (status, {}, body)) as url, Client(url) as client:
        with pytest.raises(CallreelError) as refused:
            client.health()
        with pytest.raises(CallreelError):
            list(client.job_events("j"))
    assert (refused.value.status, refused.value.transient) == (status, transient)


def test_a_page_that_is_no_json_is_an_error() -> None:
    with (
        answering(lambda *_: (200, {}, b"<html>")) as url,
        Client(url) as client,
        pytest.raises(CallreelError, match="not understood"),
    ):
        client.health()


class Job:
    """A job whose events break off in the middle, or never come."""

    def __init__(self, *, events: bytes | None, ends: dict[str, Any]) -> None:
        self.asked = 0
        self.events, self.ends = events, ends

    def __call__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path.endswith("/events"):
            if self.events is None:
                return as_json({"error": {"code": "not_found", "message": "No events here."}}, 404)
            return 200, {"Content-Type": "text/event-stream"}, self.events
        self.asked += 1
        noun = {"id": "j", "call_id": "c", "progress": {"percent": self.asked}, "error": None}
        return as_json(noun | ({"state": "running"} if self.asked < 2 else self.ends))


def test_waiting_follows_events_and_looks_at_the_job_when_they_end() -> None:
    progress = {"state": "running", "progress": {"percent": 50}}
    said = b": keep-alive\n\n" + event("job", progress) + event("segments", {"segments": []}) + b'data: {"half'
    seen: list[Any] = []
    with answering(Job(events=said, ends={"state": "succeeded"})) as url, Client(url) as client:
        assert client.wait("j", lambda job: seen.append(job["progress"]["percent"]))["call_id"] == "c"
    assert seen == [1, 50, 2]


def test_waiting_goes_on_without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callreel.client.POLL_S", 0.01)
    with answering(Job(events=None, ends={"state": "succeeded"})) as url, Client(url) as client:
        assert client.wait("j")["state"] == "succeeded"


def test_waiting_raises_what_became_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callreel.client.POLL_S", 0.01)
    failure = {"code": "unreadable_media", "message": "No sound.", "hint": "Listen", "detail": {"at": 3}}
    with answering(Job(events=None, ends={"state": "failed", "error": failure})) as url, Client(url) as client:
        with pytest.raises(UnreadableMedia, match="No sound") as failed:
            client.wait("j")
        assert failed.value.as_dict() == failure
    ends: list[tuple[str, type[Exception]]] = [("cancelled", Cancelled), ("running", TimeoutError)]
    for state, kind in ends:
        with answering(Job(events=None, ends={"state": state})) as url, Client(url) as client, pytest.raises(kind):
            client.wait("j", timeout_s=0.05)


def test_what_is_sent_and_asked() -> None:
    asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def keep(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        asked.append((method, path, headers, body))
        page = {"data": [{"id": len(asked)}], "next": None if "cursor" in path else "more"}
        return as_json({"id": "j", "key": "cr_1", **page})

    with answering(keep) as url, Client(url, "cr_secret") as client:
        options = {"speakers": ["a", "b"], "labels": {"x": 1}, "word_times": False, "language": None}
        client.submit("https://example.org/a.mp3", idempotency_key="k", **options)
        assert [found["id"] for found in client.search("refund", limit=1)] == [2, 3]
        client.delete("c")
        client.create_key("ann", "admin")
        assert client.rotate_key("i")["key"] == "cr_1"
        client.revoke_key("i")
        assert len(list(client.clients())) == 2
        client.cancel("j")
    method, path, headers, body = asked[0]
    assert (method, path, headers["Idempotency-Key"]) == ("POST", "/v1/jobs", "k")
    assert headers["Authorization"] == "Bearer cr_secret"
    form = b"speakers=a&speakers=b&labels=%7B%22x%22%3A+1%7D&word_times=false&url=https%3A%2F%2Fexample.org%2Fa.mp3"
    assert body == form
    assert [(method, path) for method, path, _, _ in asked[1:]] == [
        ("GET", "/v1/search?q=refund&limit=1"),
        ("GET", "/v1/search?q=refund&limit=1&cursor=more"),
        ("DELETE", "/v1/calls/c"),
        ("POST", "/v1/keys"),
        ("POST", "/v1/keys/i/rotate"),
        ("DELETE", "/v1/keys/i"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/keys?cursor=more"),
        ("POST", "/v1/jobs/j/cancel"),
    ]
    assert json.loads(asked[4][3]) == {"name": "ann", "role": "admin"}
