"""/v1/jobs: what may be asked for, once under one key, from a file or a URL, watched to its end; a full queue."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.server.helpers import DEADLINE_S, caller, long_file, running_child, served, upload

LIMIT = 2


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_file(tmp_path_factory.mktemp("media"), copies=6)


@pytest.fixture
def busy(server: ServerProcess, api: httpx.Client, long_recording: Path) -> Iterator[dict[str, Any]]:
    """A job that holds the server's one slot."""
    job = upload(api, long_recording)
    running_child(server, job["id"])
    yield job
    api.post(f"/v1/jobs/{job['id']}/cancel")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a short queue, which may fetch from this machine."""
    limits = {"CALLREEL_JOBS_QUEUE_LIMIT": str(LIMIT), "CALLREEL_SOURCES_ALLOW_NETWORKS": "127.0.0.0/8"}
    with served(tmp_path_factory.mktemp("narrow"), **limits) as server:
        yield server


@pytest.fixture
def narrow_api(narrow: ServerProcess) -> Iterator[httpx.Client]:
    with caller(narrow) as client:
        yield client


@pytest.fixture(scope="module")
def files_url(toy_audio: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(toy_audio))) as files:
        threading.Thread(target=files.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{files.server_port}"
        files.shutdown()


def kept(server: ServerProcess) -> set[str]:
    return {path.name for path in (server.data / "objects").glob("calls/*")}


def post(api: httpx.Client, file: Path, key: str | None = None, **form: str) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    with file.open("rb") as opened:
        return api.post("/v1/jobs", files={"file": (file.name, opened)}, data=form, headers=headers)


def events_of(api: httpx.Client, job_id: str) -> Iterator[dict[str, Any]]:
    with api.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def test_every_option_reaches_the_transcript(server: ServerProcess, api: httpx.Client, toy_audio: Path) -> None:
    body = {
        "engine": "whisper",
        "language": "English",
        "languages": "en, sw",
        "task": "transcribe",
        "prompt": "A call.",
        "hotwords": "account",
        "keywords[]": "transfer",
        "profile": "fast",
        "channels": "split",
        "speakers": ["agent", "customer"],
        "word_times": "false",
        "temperature": "0",
        "priority": "low",
        "title": "Case\n7",
        "labels": '{"case": "7"}',
    }
    with (toy_audio / "call_stereo.flac").open("rb") as file:
        made = api.post("/v1/jobs", files={"file": file}, data=body)
    assert made.status_code == 202, made.text
    job = server.finished_job(made.json()["id"])
    assert (job["state"], job["priority"]) == ("succeeded", "low"), job
    call = api.get(f"/v1/calls/{job['call_id']}").json()
    assert (call["title"], call["labels"]) == ("Case7", {"case": "7"})
    assert [track["speaker"] for track in call["tracks"]] == ["agent", "customer"]
    segments = api.get(f"/v1/calls/{job['call_id']}/transcript").json()["segments"]
    assert segments and not any(segment["words"] for segment in segments)


@pytest.mark.parametrize(
    ("form", "field", "nearest"),
    [
        ({"engine": "wisper"}, "engine", "whisper"),
        ({"engine": "os:system"}, "engine", ""),
        ({"model": "smal"}, "model", "small"),
        ({"model": "../../etc"}, "model", ""),
        ({"language": "swahil"}, "language", "swahili"),
        ({"languages": "en,zz"}, "languages.1", ""),
        ({"profile": "best"}, "profile", ""),
        ({"temperature": "2"}, "temperature", ""),
        ({"speakers": ["a", "b"]}, "speakers", ""),
        ({"labels": "[]"}, "labels", ""),
        ({"labels": '{"a b": "c"}'}, "labels", ""),
        ({"priorty": "high"}, "priorty", "priority"),
        ({"url": "http://example.com/a.wav"}, "url", ""),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    server: ServerProcess, api: httpx.Client, toy_audio: Path, form: dict[str, Any], field: str, nearest: str
) -> None:
    before = kept(server)
    refused = post(api, toy_audio / "en_short.wav", **form)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_input")
    named = error["detail"].get("field") or error["detail"]["problems"][0]["field"]
    assert named == field and nearest in error["message"] and kept(server) == before


def test_one_key_makes_one_job(server: ServerProcess, api: httpx.Client, toy_audio: Path) -> None:
    before = kept(server)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post(api, toy_audio / "en_short.wav", "one"), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [202]
    (job_id,) = {answer.json()["id"] for answer in answers}
    assert len(kept(server) - before) == 1
    server.finished_job(job_id)
    again = post(api, toy_audio / "en_short.wav", "one", priority="low")
    assert (again.status_code, again.json()["state"]) == (200, "succeeded") and len(kept(server) - before) == 1
    assert post(api, toy_audio / "en_short.wav", "two").json()["id"] != job_id
    assert post(api, toy_audio / "en_short.wav", "k" * 201).status_code == 400


@pytest.mark.parametrize(
    ("file", "form"),
    [("en_digits.flac", {}), ("silence_5s.flac", {"language": "sw"}), ("silence_5s.flac", {"engine": "whisper"})],
)
def test_a_key_is_refused_for_another_request(
    server: ServerProcess, api: httpx.Client, toy_audio: Path, file: str, form: dict[str, str]
) -> None:
    made = post(api, toy_audio / "silence_5s.flac", "used").json()
    before = kept(server)
    refused = post(api, toy_audio / file, "used", **form)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["detail"]) == (409, "conflict", {"job_id": made["id"]})
    assert kept(server) == before and post(api, toy_audio / "silence_5s.flac", "used").json()["id"] == made["id"]


def test_a_key_is_its_clients_own(ann: httpx.Client, root: httpx.Client, toy_audio: Path) -> None:
    jobs = [post(api, toy_audio / "silence_5s.flac", "same").json()["id"] for api in (ann, root)]
    assert jobs[0] != jobs[1]


def test_a_url_is_fetched_by_the_job(
    narrow: ServerProcess, narrow_api: httpx.Client, files_url: str, references: dict[str, Any]
) -> None:
    made = narrow_api.post(
        "/v1/jobs", json={"url": f"{files_url}/en_short.wav", "languages": ["en"], "labels": {"a": "b"}}
    )
    assert made.status_code == 202, made.text
    job = narrow.finished_job(made.json()["id"])
    assert narrow.text(job["call_id"]) == references["en_short.wav"]["tracks"]["mono"]["text"]
    assert narrow_api.get(f"/v1/calls/{job['call_id']}").json()["title"] == "en_short.wav"
    missing = narrow_api.post("/v1/jobs", data={"url": f"{files_url}/none.wav"}).json()
    ended = narrow.finished_job(missing["id"])
    assert ended["state"] == "failed" and ended["error"]["code"] == "source_refused"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/a.wav", "http://[::1]/a", "http://localhost/a", "file:///etc/passwd", "ftp://a.example/b"],
)
def test_a_url_to_this_machine_is_refused_at_once(server: ServerProcess, api: httpx.Client, url: str) -> None:
    refused = api.post("/v1/jobs", data={"url": url})
    assert refused.status_code in (400, 403) and refused.json()["error"]["hint"]


def test_a_full_queue_says_when_to_come_back(
    narrow: ServerProcess, narrow_api: httpx.Client, toy_audio: Path, long_recording: Path
) -> None:
    busy = upload(narrow_api, long_recording)
    running_child(narrow, busy["id"])
    queued = [post(narrow_api, toy_audio / "en_short.wav", f"q{n}").json() for n in range(LIMIT)]
    before = kept(narrow)
    for path in ("/v1/jobs", "/audio/process"):
        refused = narrow_api.post(path, files={"file": ("a.wav", bytes(5_000_000))})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
    refused = narrow_api.post("/v1/audio/transcriptions", files={"file": ("a.wav", bytes(9))})
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert post(narrow_api, toy_audio / "en_short.wav", "q0").json()["id"] == queued[0]["id"]  # it has its place
    assert kept(narrow) == before
    for job in (*queued, busy):
        narrow_api.post(f"/v1/jobs/{job['id']}/cancel")


def test_a_queued_job_knows_its_place(api: httpx.Client, busy: dict[str, Any], toy_audio: Path) -> None:
    first, second = (upload(api, toy_audio / "en_short.wav") for _ in range(2))
    places = [api.get(f"/v1/jobs/{job['id']}").json()["place"] for job in (first, second)]
    assert [place["ahead"] for place in places] == [0, 1] and places[1]["eta_s"] >= places[0]["eta_s"] > 0
    assert "place" not in api.get(f"/v1/jobs/{busy['id']}").json()
    for job in (first, second):
        api.post(f"/v1/jobs/{job['id']}/cancel")


def test_jobs_are_found_by_state_kind_and_call(api: httpx.Client, server: ServerProcess, toy_audio: Path) -> None:
    job = server.finished_job(upload(api, toy_audio / "en_short.wav")["id"])

    def found(**wanted: str) -> list[str]:
        return [one["id"] for one in api.get("/v1/jobs", params=wanted).json()["data"]]

    assert found(call_id=job["call_id"]) == [job["id"]] and found(call_id="none") == []
    assert job["id"] in found(state="succeeded", kind="transcribe") and found(kind="export") == []


def test_a_job_is_watched_to_its_end(api: httpx.Client, busy: dict[str, Any], toy_audio: Path) -> None:
    job = upload(api, toy_audio / "en_digits.flac")
    events = events_of(api, job["id"])
    present = next(events)
    assert (present["type"], present["data"]["state"], present["data"]["place"]["ahead"]) == ("job", "queued", 0)
    api.post(f"/v1/jobs/{busy['id']}/cancel")
    seen = list(events)
    assert [event["id"] for event in seen] == sorted(event["id"] for event in seen)
    assert seen[-1]["data"]["state"] == "succeeded"
    assert any(event["data"].get("progress", {}).get("step") == "transcribe" for event in seen)
    said = " ".join(s["text"] for event in seen if event["type"] == "segments" for s in event["data"]["segments"])
    assert said == api.get(f"/v1/calls/{job['call_id']}/transcript").json()["text"]
    (late,) = events_of(api, job["id"])  # who comes late gets how it ended, and the end
    assert late["data"]["state"] == "succeeded" and late["data"]["result"]


def test_the_log_tells_what_a_job_did_until_it_is_forgotten(
    server: ServerProcess, api: httpx.Client, toy_audio: Path
) -> None:
    job = server.finished_job(upload(api, toy_audio / "en_unseen_voice.flac")["id"])
    log = api.get(f"/v1/jobs/{job['id']}/log")
    assert log.headers["content-type"].startswith("text/plain") and "engine whisper" in log.text
    tail = api.get(f"/v1/jobs/{job['id']}/log", params={"tail": 1}).text
    assert tail == log.text.splitlines(keepends=True)[-1] and "done" in tail
    left = server.data / "work" / job["id"] / "left"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()  # of an attempt that was cut off
    assert api.delete(f"/v1/jobs/{job['id']}").status_code == 204 and not left.parent.exists()
    for path in ("", "/log", "/events"):
        assert api.get(f"/v1/jobs/{job['id']}{path}").status_code == 404
    assert api.get(f"/v1/calls/{job['call_id']}").status_code == 200


def test_a_job_at_work_is_not_forgotten(api: httpx.Client, busy: dict[str, Any]) -> None:
    refused = api.delete(f"/v1/jobs/{busy['id']}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")


def test_another_clients_job_is_not_there(ann: httpx.Client, bob: httpx.Client, toy_audio: Path) -> None:
    job = upload(ann, toy_audio / "silence_5s.flac")["id"]
    wait_for(lambda: ann.get(f"/v1/jobs/{job}").json()["state"] == "succeeded", DEADLINE_S, "it is done")
    paths = (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", f"/v1/jobs/{job}/log", f"/audio/task/{job}")
    assert [bob.get(path).status_code for path in paths] == [404] * 4
    assert [bob.delete(path).status_code for path in (paths[0], paths[3])] == [404] * 2
    assert ann.get(paths[0]).status_code == 200
