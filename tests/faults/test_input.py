"""Bad files and bad names, as a user meets them over HTTP and on the command line: a code, a hint, nothing left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.cli.running import callreel
from tests.faults.hostile import FILES, NAMES, SECRET, Refused, make
from tests.faults.scene import WITHIN_S, files
from tests.server.helpers import TOY_AUDIO, TOY_MODEL, caller, served

TOY_TRANSCRIBE = ("--engine", "whisper", "--model", str(TOY_MODEL), "--format", "json")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with served(tmp_path_factory.mktemp("input"), CALLREEL_JOBS_MAX_CONCURRENT="transcribe=2") as server:
        yield server
        server.stop()
        assert "Traceback" not in server.log()


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    with caller(server) as client:
        yield client


def send(api: httpx.Client, path: Path, route: str = "/v1/audio/transcriptions", **form: str) -> httpx.Response:
    with path.open("rb") as file:
        return api.post(route, files={"file": (path.name, file)}, data=form)


@pytest.mark.parametrize("name", FILES)
def test_over_http(server: ServerProcess, api: httpx.Client, tmp_path: Path, name: str) -> None:
    path, expected = make(name, tmp_path), FILES[name]
    before = files(server.data)
    answer = send(api, path, model="whisper-1", response_format="verbose_json")
    if isinstance(expected, Refused):
        error = answer.json()["error"]
        if path.stat().st_size == 0:
            assert (answer.status_code, error["code"]) == (400, "invalid_input") and "empty" in error["message"]
        else:
            assert (answer.status_code, error["code"]) == (400, expected.code), error  # OpenAI knows no 422
            assert expected.says in error["message"] and error["type"] == "invalid_request_error"
            assert len(error["message"]) > 40  # what to do is in it: OpenAI's shape has no hint
        assert SECRET not in answer.text and str(server.data) not in answer.text
    else:
        assert answer.status_code == 200, answer.text
        warnings = " ".join(answer.json().get("warnings", []))
        assert expected.warning in warnings and bool(expected.warning) == bool(warnings), answer.json()
    wait_for(
        lambda: {p for p in files(server.data) - before if not p.startswith("logs/")} == set(), WITHIN_S, "all gone"
    )


def test_a_job_says_it_too(server: ServerProcess, api: httpx.Client, tmp_path: Path) -> None:
    """The same error in our own shape, and the warning of a transcript on it."""
    made = {name: send(api, make(name, tmp_path), "/v1/jobs").json()["id"] for name in ("text.wav", "cut.mp3")}
    failed = server.finished_job(made["text.wav"])
    assert (failed["state"], failed["attempts"], failed["error"]["code"]) == ("failed", 1, "unreadable_media")
    assert "media file" in failed["error"]["message"] and failed["error"]["hint"]
    done = server.finished_job(made["cut.mp3"])
    document: dict[str, Any] = api.get(f"/v1/calls/{done['call_id']}/transcript").json()
    assert "breaks off" in " ".join(document["warnings"])
    for job in (failed, done):
        assert api.delete(f"/v1/calls/{job['call_id']}").status_code == 204
    assert not [path for path in files(server.data) if not path.startswith("logs/")]


def test_on_the_command_line(tmp_path: Path) -> None:
    """All of them in one run: each that cannot be read has its line and its hint, and all others their transcripts."""
    paths = [make(name, tmp_path) for name in FILES]
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    ended = callreel("transcribe", *paths, "-o", tmp_path / "out", *TOY_TRANSCRIBE, TMPDIR=str(tmp_path / "tmp"))
    written = {path.stem for path in (tmp_path / "out").iterdir()}
    refused = {path for path in paths if isinstance(FILES[path.name], Refused)}
    assert ended.returncode == 1 and ended.stdout == "" and "Traceback" not in ended.stderr
    assert written == {path.stem for path in paths if path not in refused}
    for path in refused:
        expected = FILES[path.name]
        said = re.search(rf"^callreel: {re.escape(str(path))}: (.+)\n  (\S.*)$", ended.stderr, re.MULTILINE)
        assert said is not None, (path.name, ended.stderr)
        assert isinstance(expected, Refused) and expected.says in said[1]
    assert f"{len(refused)} of {len(paths)} files could not be transcribed" in ended.stderr
    assert ended.stderr.count("breaks off") >= 3
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_something_to_show(server: ServerProcess, api: httpx.Client, tmp_path: Path, name: str) -> None:
    content = (TOY_AUDIO / "silence_5s.flac").read_bytes()
    # By hand: clients escape what a stranger would not.
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n\r\n'
    made = api.post(
        "/v1/jobs",
        content=head + content + b"\r\n--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    if made.status_code == 400:
        assert made.json()["error"]["code"] == "invalid_input"
        return
    assert made.status_code == 202, made.text
    job = server.finished_job(made.json()["id"])
    call = api.get(f"/v1/calls/{job['call_id']}").json()
    assert len(call["title"]) <= 200 and not set(call["title"]) & set("\0\r\n/\\")
    for format in ("txt", "json", "srt", "vtt", "tsv", "md", "docx"):
        got = api.get(f"/v1/calls/{job['call_id']}/transcript", params={"format": format, "download": "true"})
        assert got.status_code == 200 and "x-evil" not in got.headers
        assert got.headers["content-disposition"].startswith('attachment; filename="')
    assert not Path("/tmp/evil.wav").exists()
    api.delete(f"/v1/calls/{job['call_id']}")
