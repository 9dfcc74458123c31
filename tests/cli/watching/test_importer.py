"""The import of a watched folder: against a server of a few lines that keeps what it was told."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callreel.cli.watching.folder import Folder
from callreel.cli.watching.importer import After, Importer
from callreel.cli.watching.journal import Journal
from callreel.client import Client
from callreel.errors import InvalidInput, ServerUnreachable
from tests.odd_servers import Answer, answering

GOOD, BAD = b"good sound", b"no sound"


class Jobs:
    """Jobs by idempotency key; a file with BAD in it fails. `refusal` is answered instead, while it is set."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.forms: list[bytes] = []
        self.uploads = 0
        self.refusal: Answer | None = None
        self.running = False
        self.forgotten = False
        self.strict = False  # about keys, as if every request had other options

    def __call__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if self.refusal is not None:
            return self.refusal
        if method == "POST":
            self.uploads += 1
            self.forms.append(body)
            key = headers["Idempotency-Key"]
            if key in self.keys and self.strict:
                detail = {"job_id": str(self.keys.index(key))}
                return as_json({"error": {"code": "conflict", "message": "used", "detail": detail}}, 409)
            if key not in self.keys:
                self.keys.append(key)
            return as_json({"id": f"{self.keys.index(key)}{'-bad' if BAD in body else ''}", "state": "queued"}, 202)
        if self.forgotten:
            return as_json({"error": {"code": "not_found", "message": "gone"}}, 404)
        id = path.rpartition("/")[2]
        job: dict[str, Any] = {"id": id, "call_id": f"call {id}", "state": "succeeded", "error": None}
        if self.running:
            job["state"] = "running"
        elif id.endswith("bad"):
            job |= {"state": "failed", "error": {"code": "unreadable_media", "message": "No sound.", "hint": "Listen"}}
        return as_json(job)


def as_json(noun: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(noun).encode()


class Watch:
    """A watched folder with its importer, which can be started anew."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root / "calls", url
        self.root.mkdir()
        self.said: list[str] = []

    def drop(self, name: str, content: bytes = GOOD) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def rounds(self, count: int = 2, after: After = "keep", labels: str | None = None, **options: Any) -> Importer:
        """So many rounds of a new process."""
        with Journal.open(self.root.parent / "journal", self.root) as journal, Client(self.url) as client:
            importer = Importer(
                client,
                Folder(self.root, recursive=True, stable_s=0),
                journal,
                options,
                re.compile(labels) if labels else None,
                after,
                self.said.append,
            )
            for _ in range(count):
                self.left = importer.round().under_way
        return importer

    def there(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
def server() -> Jobs:
    return Jobs()


@pytest.fixture
def watch(tmp_path: Path, server: Jobs) -> Iterator[Watch]:
    with answering(server) as url:
        yield Watch(tmp_path, url)


def test_each_content_is_imported_once_over_restarts_and_names(server: Jobs, watch: Watch) -> None:
    watch.drop("a.wav")
    watch.rounds()
    watch.rounds()
    watch.drop("b.wav")
    watch.rounds()
    assert (server.uploads, watch.left) == (1, 0) and len(server.keys[0]) == 64
    assert watch.said == [
        "a.wav: sent, job 0",
        "a.wav: done, call call 0",
        "b.wav: the same as a.wav, which was imported already",
    ]
    watch.drop("a.wav", GOOD + b", but another")
    watch.rounds()
    assert len(server.keys) == 2 and watch.there() == ["a.wav", "b.wav"]


def test_a_file_is_put_away_when_its_job_has_succeeded(server: Jobs, watch: Watch) -> None:
    server.running = True
    watch.drop("in/a.wav")
    watch.rounds(after="move")
    assert watch.there() == ["in/a.wav"] and watch.left == 1
    server.running = False
    watch.rounds(1, after="move")
    assert watch.there() == ["done/in/a.wav"] and watch.left == 0
    watch.drop("in/a.wav")
    watch.rounds(1, after="delete")
    assert watch.there() == ["done/in/a.wav"] and server.uploads == 1


def test_a_killed_one_puts_away_what_it_had_said_so_of(server: Jobs, watch: Watch, monkeypatch: Any) -> None:
    watch.drop("a.wav")
    with monkeypatch.context() as patch:
        patch.setattr("callreel.cli.watching.importer.put_away", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            watch.rounds(after="move")
    watch.rounds(after="move")
    assert watch.there() == ["done/a.wav"] and server.uploads == 1


def test_a_bad_file_is_named_once_and_set_aside(server: Jobs, watch: Watch) -> None:
    watch.drop("a.wav", BAD)
    assert watch.rounds(4, after="move").failed == 1
    watch.rounds(after="move")
    assert watch.there() == ["failed/a.wav"]
    assert watch.said[1] == f"a.wav: not imported: No sound.; it lies in {watch.root / 'failed'} now\n  Listen"
    assert len(watch.said) == 2
    (watch.root / "failed" / "a.wav").rename(watch.root / "a.wav")  # its user says: try again
    watch.rounds(after="move")
    assert [key[64:] for key in server.keys] == ["", "-2"] and watch.there() == ["failed/a.wav"]


def test_a_bad_file_that_is_kept_is_tried_again_when_touched(server: Jobs, watch: Watch) -> None:
    path = watch.drop("a.wav", BAD)
    watch.rounds(3)
    assert server.uploads == 1 and watch.there() == ["a.wav"]
    os.utime(path, (1, 1))
    watch.rounds(3)
    assert [key[64:] for key in server.keys] == ["", "-2"] and server.uploads == 2


def test_a_file_that_the_server_refuses_is_bad(server: Jobs, watch: Watch) -> None:
    server.refusal = as_json(
        {"error": {"code": "too_large", "message": "Too large.", "detail": {"limit_bytes": 3}}}, 413
    )
    watch.drop("a.wav")
    assert watch.rounds(3).failed == 1 and "not imported: Too large." in watch.said[0]


def test_what_is_wrong_with_every_file_ends_it(server: Jobs, watch: Watch) -> None:
    problems = [{"field": "language", "problem": "no such"}]
    refusal = {"code": "invalid_input", "message": "language: no such", "detail": {"problems": problems}}
    server.refusal = as_json({"error": refusal}, 400)
    watch.drop("a.wav")
    with pytest.raises(InvalidInput, match="language"):
        watch.rounds(after="move", language="xx")
    server.refusal = None
    watch.rounds(after="move")
    assert watch.there() == ["done/a.wav"]


def test_a_full_queue_is_waited_for(server: Jobs, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    full = {"error": {"code": "queue_full", "message": "Full.", "detail": {"retry_after_s": 60}}}
    server.refusal = as_json(full, 429)
    watch.drop("a.wav")
    with Journal.open(watch.root.parent / "journal", watch.root) as journal, Client(watch.url) as client:
        importer = Importer(client, Folder(watch.root, stable_s=0), journal, {}, None, "keep", watch.said.append)
        assert importer.round().under_way == 1
        server.refusal = None
        assert importer.round().under_way == 1 and server.uploads == 0  # it was told to come back in a minute
        now = 61.0 + time.monotonic()
        monkeypatch.setattr("callreel.cli.watching.importer.time.monotonic", lambda: now)
        assert importer.round().under_way == 1 and server.uploads == 1
        assert importer.round().under_way == 0 and importer.failed == 0


def test_no_server_is_told_to_whoever_goes_round(server: Jobs, watch: Watch) -> None:
    watch.drop("a.wav")
    url, watch.url = watch.url, "http://127.0.0.1:1"
    with pytest.raises(ServerUnreachable):
        watch.rounds()
    watch.url = url
    watch.rounds()
    assert server.uploads == 1 and watch.said[-1].startswith("a.wav: done")


def test_a_job_that_the_server_forgot_is_sent_again(server: Jobs, watch: Watch) -> None:
    watch.drop("a.wav")
    watch.rounds(1)
    server.forgotten = True
    watch.rounds(1)
    server.forgotten = False
    watch.rounds(1)
    assert [key[64:] for key in server.keys] == ["", "-2"] and watch.left == 0


def test_options_and_labels_go_with_each_file(server: Jobs, watch: Watch) -> None:
    watch.drop("ann/2026-call.wav")
    watch.drop("other.wav", b"other")
    watch.rounds(labels=r"(?P<agent>\w+)/(?P<year>\d+)?", channels="split", speakers=["a", "b"])
    labelled = next(form for form in server.forms if b"2026-call" in form)
    assert b'name="labels"\r\n\r\n{"agent": "ann", "year": "2026"}' in labelled
    assert labelled.count(b'name="speakers"') == 2 and b'name="channels"\r\n\r\nsplit' in labelled
    assert b"labels" not in next(form for form in server.forms if b"other.wav" in form)


def test_a_file_that_vanishes_is_no_trouble(server: Jobs, watch: Watch) -> None:
    server.running = True
    path = watch.drop("a.wav")
    watch.rounds(1)
    path.unlink()
    server.running = False
    assert watch.rounds(2, after="move").failed == 0 and watch.left == 0


def test_what_a_watch_with_other_options_sent_is_followed(server: Jobs, watch: Watch) -> None:
    watch.drop("a.wav")
    watch.rounds()
    shutil.rmtree(watch.root.parent / "journal")  # it was cut off before it wrote that down
    server.strict = True
    watch.rounds(language="sw")
    assert len(server.keys) == 1 and watch.said[-1] == "a.wav: done, call call 0"
