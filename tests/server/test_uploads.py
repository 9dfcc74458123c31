"""Uploads: on the disk as they come, whole or not at all, whatever their sender does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.errors import CallreelError, InvalidInput, TooLarge
from callreel.measure.harness import ServerProcess, wait_for
from callreel.server.forms import Form
from callreel.server.uploads import FIELDS_BYTES, MAX_PARTS, _Multipart, title_of
from tests.server.helpers import UPLOAD_LIMIT

BOUNDARY = b"----x"
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
        BOUNDARY,
        name.encode(),
        file.encode(),
        value,
    )


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def read(
    folder: Path, body: bytes, cuts: Sequence[int] = (), limit_bytes: int = 10**7
) -> tuple[list[tuple[str, Any]], list[tuple[str, str, bytes, str]]]:
    """Fields and files (name, title, bytes, hash) of a body that comes in pieces; nothing is left in `folder`."""

    async def run() -> tuple[Form, list[bytes]]:
        form = _Multipart(BOUNDARY, folder, limit_bytes)
        try:
            ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
            for start, end in zip([0, *ends], ends, strict=False):
                await form.feed(body[start:end])
            done = form.end()
            return done, [upload.path.read_bytes() for upload in done.files]
        finally:
            await form.discard()

    try:
        form, contents = asyncio.run(run())
    finally:
        assert list(folder.iterdir()) == []
    assert [upload.size for upload in form.files] == [len(content) for content in contents]
    files = [(u.name, u.title, content, u.sha256) for u, content in zip(form.files, contents, strict=True)]
    return form.fields, files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tmp")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
CONTENT = st.lists(
    st.sampled_from([b"\r\n--" + BOUNDARY[:3], b"\r\n", b"\r", b"--", b"\x00", b"sound", BOUNDARY]), max_size=12
).map(b"".join)


@given(
    files=st.lists(st.tuples(st.sampled_from(["file", "other"]), CONTENT.map(lambda c: c + b"."))),
    fields=st.lists(st.tuples(st.sampled_from(["language", "task"]), TEXT)),
    cuts=st.lists(st.integers(0, 600)),
)
def test_whatever_the_pieces_it_comes_in_a_form_is_read_the_same(
    folder: Path, files: list[tuple[str, bytes]], fields: list[tuple[str, str]], cuts: list[int]
) -> None:
    files = [(name, content) for name, content in files if b"\r\n--" + BOUNDARY not in b"\r\n" + content]
    fields = [(name, text) for name, text in fields if b"\r\n--" + BOUNDARY not in b"\r\n" + text.encode()]
    body = whole(*(part(name, text.encode()) for name, text in fields), *(part(name, c, "a.wav") for name, c in files))
    got_fields, got_files = read(folder, body, cuts)
    assert got_fields == fields
    assert got_files == [(name, "a.wav", c, hashlib.sha256(c).hexdigest()) for name, c in files]


@given(body=st.binary(max_size=300) | CONTENT.map(lambda c: part("file", c, "a")), cut=st.integers(0, 300))
def test_what_is_no_form_is_refused_and_nothing_else(folder: Path, body: bytes, cut: int) -> None:
    with pytest.raises(InvalidInput):
        read(folder, body, [cut])


@given(at=st.integers(0, 10_000))
def test_a_form_that_ends_in_its_middle_is_refused(folder: Path, at: int) -> None:
    body = whole(part("language", b"en"), part("file", b"sound" * 30, "a.wav"))
    with pytest.raises(InvalidInput):
        read(folder, body[: at % (len(body) - 4)], [at % 50])


@pytest.mark.parametrize(
    ("body", "limit_bytes", "refusal"),
    [
        (part("file", bytes(1001), "a"), 1000, TooLarge),
        (part("prompt", bytes(FIELDS_BYTES + 1)), 1000, TooLarge),
        (part("a", b"b") * (MAX_PARTS + 1), 1000, InvalidInput),
        (part("file", b"", "a.wav"), 1000, InvalidInput),
        (part("language", b"\xff\xfe"), 1000, InvalidInput),
        (part("language", b"e\0n"), 1000, InvalidInput),
        (part("", b"x"), 1000, InvalidInput),
    ],
    ids=["a large file", "long fields", "many parts", "an empty file", "no UTF-8", "NUL", "no name"],
)
def test_what_is_out_of_bounds_is_refused(
    folder: Path, body: bytes, limit_bytes: int, refusal: type[CallreelError]
) -> None:
    with pytest.raises(refusal):
        read(folder, whole(body), limit_bytes=limit_bytes)


def test_an_input_that_nobody_chose_a_file_for_is_not_there(folder: Path) -> None:
    assert read(folder, whole(part("file", b"", ""))) == ([], [])


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (b"call.wav", "call.wav"),
        (b"../../etc/passwd", "passwd"),
        (b"C:\\calls\\one.wav", "one.wav"),
        (b"a\0b\x1b[31m\xe2\x80\xae.wav", "ab[31m.wav"),
        (b"\xff\xfe.wav", "��.wav"),
        (b"x" * 300, "x" * 200),
        (b"..", ".."),
        (b"/", ""),
        ("Gespräch  1.wav".encode(), "Gespräch 1.wav"),
    ],
)
def test_a_name_is_only_something_to_show(name: bytes, title: str) -> None:
    assert title_of(name) == title


# -- through the server


def kept(server: ServerProcess) -> set[Path]:
    return {*(server.data / "objects").glob("calls/*"), *(server.data / "tmp").iterdir()}


@pytest.mark.parametrize("name", ["../../../../tmp/evil", "x" * 300, "nul%00.wav", "a\\b\\..\\c.wav"])
def test_a_hostile_name_is_no_path(server: ServerProcess, api: httpx.Client, toy_audio: Path, name: str) -> None:
    sound = (toy_audio / "silence_5s.flac").read_bytes()
    answer = api.post("/v1/jobs", files={"file": (name, sound)})
    assert answer.status_code == 202
    title = api.get(f"/v1/calls/{answer.json()['call_id']}").json()["title"]
    assert len(title) <= 200 and "/" not in title and "\\" not in title
    source = server.data / "objects" / "calls" / answer.json()["call_id"] / "source"
    assert source.read_bytes() == sound
    server.finished_job(answer.json()["id"])


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no form"),
        ("multipart/form-data; boundary=x", HEAD + b"sound"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--\r\n"),
        ("application/x-www-form-urlencoded", b"language=en"),
        ("application/x-www-form-urlencoded", b"\xff=%ff"),
        ("application/json", b"[1, 2"),
        ("application/json", b"[" * 100_000),
        ("text/plain", b"hello"),
        ("", b"hello"),
    ],
)
def test_a_body_that_is_no_upload_is_refused(server: ServerProcess, api: httpx.Client, kind: str, body: bytes) -> None:
    before = kept(server)
    answer = api.post("/v1/jobs", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_input", answer.text
    assert answer.json()["error"]["hint"]
    assert kept(server) == before


def test_an_unknown_field_is_told_which_one_was_meant(api: httpx.Client) -> None:
    error = api.post("/v1/jobs", files={"file": ("a", b"x")}, data={"langage": "en"}).json()["error"]
    assert error["detail"]["problems"] == [
        {"field": "langage", "problem": "There is no such field; did you mean 'language'?"}
    ]


def test_a_sender_that_hangs_up_leaves_nothing(server: ServerProcess) -> None:
    before = kept(server)
    with socket.create_connection(("127.0.0.1", server.port)) as sender:
        sender.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + HEAD + bytes(4_000_000)
        )
        wait_for(lambda: kept(server) != before, 10.0, "some of it is on the disk")
    wait_for(lambda: kept(server) == before, 10.0, "it is gone")
    assert "Traceback" not in server.log()


def test_an_answer_before_the_end_of_a_body_arrives_and_ends_the_connection(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sender:
        sender.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + HEAD
        )
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}}"):
            sender.sendall(bytes(100_000))  # deaf, for a while
            sender.setblocking(False)
            try:
                answer += sender.recv(10_000)
            except BlockingIOError:
                pass
            finally:
                sender.setblocking(True)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413") and b"connection: close" in head.lower()
        assert json.loads(body)["error"]["code"] == "too_large"
        with pytest.raises(OSError):  # it is closed, not read on for ever
            while True:
                sender.sendall(bytes(100_000))


@contextmanager
def files_of_at_most(server: ServerProcess, size: int) -> Iterator[None]:
    """The kernel refuses larger files of the server, as a full disk does."""
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_disk_that_becomes_full_in_the_middle_is_said_and_nothing_stays(
    server: ServerProcess, api: httpx.Client
) -> None:
    before = kept(server)
    with files_of_at_most(server, 12_000_000):
        refused = api.post("/v1/jobs", files={"file": ("large.wav", bytes(UPLOAD_LIMIT - 1))})
    assert refused.status_code == 507 and refused.json()["error"]["code"] == "out_of_space"
    assert kept(server) == before
