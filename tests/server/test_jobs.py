"""/v1/jobs against a real server: from the upload to the transcript, and every way it can end otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.server.helpers import DEADLINE_S, UPLOAD_LIMIT, is_gone, long_file, running_child, upload


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_file(tmp_path_factory.mktemp("media"), copies=6)


@pytest.fixture
def busy(server: ServerProcess, api: httpx.Client, long_recording: Path) -> Iterator[dict[str, Any]]:
    """A job that holds the server's one slot."""
    job = upload(api, long_recording)
    yield job
    api.post(f"/v1/jobs/{job['id']}/cancel")


def kept(server: ServerProcess) -> set[str]:
    return {path.name for path in (server.data / "objects").glob("calls/*")}


def scratch(server: ServerProcess) -> list[Path]:
    return list((server.data / "work").iterdir())


def test_an_upload_becomes_a_transcript(
    server: ServerProcess, api: httpx.Client, toy_audio: Path, references: dict[str, Any]
) -> None:
    job = upload(api, toy_audio / "en_short.wav")
    assert job["state"] == "queued" and job["kind"] == "transcribe" and "params" not in job
    done = server.finished_job(job["id"])
    assert done["state"] == "succeeded", done
    assert done["progress"] == {"percent": 100, "step": "done", "eta_s": 0.0, "rtfx": None}
    assert done["usage"]["audio_s"] == pytest.approx(3.61, abs=0.05) and done["usage"]["peak_rss_bytes"] > 1e6
    assert done["result"]["call_id"] == job["call_id"] and done["result"]["language"] == "en"
    call = api.get(f"/v1/calls/{job['call_id']}").json()
    assert call["state"] == "done" and call["title"] == "en_short.wav" and call["language"] == "en"
    assert [t["name"] for t in call["tracks"]] == ["mix"]
    assert [(t["pass"], t["state"], t["current"]) for t in call["transcripts"]] == [("final", "done", True)]
    spoken = references["en_short.wav"]["tracks"]["mono"]["text"]
    document = api.get(call["links"]["transcript"]).json()
    assert document["text"] == spoken and document["transcript"] == done["result"]["transcript_id"]
    words = [word for segment in document["segments"] for word in segment["words"]]
    assert "".join(word["word"] for word in words).split() == spoken.split()
    text = api.get(call["links"]["transcript"], params={"format": "txt"})
    assert text.text == f"{spoken}\n" and text.headers["content-type"].startswith("text/plain")
    wait_for(lambda: scratch(server) == [], DEADLINE_S, "the work is cleared away")
    assert "transcription_rtfx_count 0.0" not in server.get("/metrics")


def test_the_language_that_was_asked_for_is_taken(server: ServerProcess, api: httpx.Client, toy_audio: Path) -> None:
    job = server.finished_job(upload(api, toy_audio / "sw_short.flac", language="sw")["id"])
    assert job["result"]["language"] == "sw"
    assert "habari asubuhi" in server.text(job["call_id"])


def test_a_language_the_engine_has_not_fails_at_once(server: ServerProcess, api: httpx.Client, toy_audio: Path) -> None:
    job = server.finished_job(upload(api, toy_audio / "en_short.wav", language="de")["id"])
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 1, "invalid_input")
    assert "en, sw" in job["error"]["hint"]


def test_an_unreadable_file_fails_with_what_to_do(server: ServerProcess, api: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "song.mp3"
    file.write_bytes(b"this is no sound at all" * 100)
    job = server.finished_job(upload(api, file)["id"])
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 1, "unreadable_media")
    assert job["error"]["hint"]
    assert api.get(f"/v1/calls/{job['call_id']}").json()["state"] == "failed"
    refused = api.get(f"/v1/calls/{job['call_id']}/transcript")
    assert refused.status_code == 404 and "failed" in refused.json()["error"]["hint"]
    of_call = server.data / "objects" / "calls" / job["call_id"]
    wait_for(lambda: not of_call.exists() and scratch(server) == [], DEADLINE_S, "nothing is left of it")


def test_a_running_job_is_stopped_within_two_seconds(
    server: ServerProcess, api: httpx.Client, busy: dict[str, Any]
) -> None:
    child = running_child(server, busy["id"])
    began = time.monotonic()
    answer = api.post(f"/v1/jobs/{busy['id']}/cancel")
    wait_for(lambda: is_gone(child), 2.0, "the job's process has ended")
    assert time.monotonic() - began < 2.0
    assert answer.status_code == 200 and answer.json()["state"] == "cancelled"
    assert api.get(f"/v1/calls/{busy['call_id']}").json()["state"] == "failed"
    wait_for(lambda: scratch(server) == [], 5.0, "its scratch folder is gone")
    assert api.post(f"/v1/jobs/{busy['id']}/cancel").json()["state"] == "cancelled"  # twice is harmless
    assert api.get(f"/v1/jobs/{busy['id']}").json()["attempts"] == 1


def test_a_job_cancelled_while_its_process_starts_is_stopped_too(
    server: ServerProcess, api: httpx.Client, long_recording: Path
) -> None:
    for _ in range(3):
        job = upload(api, long_recording)
        wait_for(lambda j=job: api.get(f"/v1/jobs/{j['id']}").json()["state"] == "running", 10.0, "it is claimed")
        api.post(f"/v1/jobs/{job['id']}/cancel")
        wait_for(lambda: "job" not in server.children(), 2.0, "no job process is left")


def test_a_queued_job_is_cancelled_without_having_run(
    server: ServerProcess, api: httpx.Client, busy: dict[str, Any], toy_audio: Path
) -> None:
    running_child(server, busy["id"])
    queued = upload(api, toy_audio / "en_short.wav")
    assert api.get("/v1/jobs", params={"state": "queued"}).json()["data"][0]["id"] == queued["id"]
    assert api.post(f"/v1/jobs/{queued['id']}/cancel").json()["state"] == "cancelled"
    assert api.get(f"/v1/jobs/{busy['id']}").json()["state"] == "running"  # its neighbour goes on
    api.post(f"/v1/jobs/{busy['id']}/cancel")
    after = server.finished_job(upload(api, toy_audio / "en_short.wav")["id"])
    assert after["state"] == "succeeded"
    assert api.get(f"/v1/jobs/{queued['id']}").json()["attempts"] == 0
    assert api.get(f"/v1/calls/{queued['call_id']}").json()["state"] == "failed"


def test_high_priority_goes_first(
    server: ServerProcess, api: httpx.Client, busy: dict[str, Any], toy_audio: Path
) -> None:
    running_child(server, busy["id"])
    low, high = (upload(api, toy_audio / "en_short.wav", priority=priority) for priority in ("low", "high"))
    api.post(f"/v1/jobs/{busy['id']}/cancel")
    ended = [server.finished_job(job["id"]) for job in (low, high)]
    assert ended[1]["finished_at"] <= ended[0]["started_at"]


def test_a_finished_job_cannot_be_cancelled(server: ServerProcess, api: httpx.Client, toy_audio: Path) -> None:
    job = server.finished_job(upload(api, toy_audio / "en_short.wav")["id"])
    refused = api.post(f"/v1/jobs/{job['id']}/cancel")
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "conflict"
    assert api.get(f"/v1/calls/{job['call_id']}").json()["state"] == "done"


def test_an_empty_upload_is_refused_and_nothing_stays(server: ServerProcess, api: httpx.Client) -> None:
    before = kept(server)
    refused = api.post("/v1/jobs", files={"file": ("empty.wav", b"")})
    assert refused.status_code == 400 and "empty" in refused.json()["error"]["message"]
    assert kept(server) == before


@pytest.mark.parametrize("over", [1, 2_000_000], ids=["by a byte", "by more than a form may hold"])
def test_a_large_upload_is_refused_and_nothing_stays(server: ServerProcess, api: httpx.Client, over: int) -> None:
    before, jobs = kept(server), api.get("/v1/jobs").json()
    refused = api.post("/v1/jobs", files={"file": ("large.wav", bytes(UPLOAD_LIMIT + over))})
    assert refused.status_code == 413 and refused.json()["error"]["code"] == "too_large"
    assert refused.json()["error"]["detail"] == {"limit_bytes": UPLOAD_LIMIT}
    assert kept(server) == before and api.get("/v1/jobs").json() == jobs


def test_an_upload_of_unknown_length_is_bounded_while_it_comes(server: ServerProcess, api: httpx.Client) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while sent < UPLOAD_LIMIT + 8_000_000:
            sent += 1_000_000
            yield bytes(1_000_000)
        yield b"\r\n--x--\r\n"

    before = kept(server)
    refused = api.post("/v1/jobs", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert refused.status_code == 413 and refused.json()["error"]["code"] == "too_large"
    assert refused.json()["error"]["detail"] == {"limit_bytes": UPLOAD_LIMIT}
    assert kept(server) == before


def test_who_sends_a_file_is_asked_before_it_is_read(server: ServerProcess, api: httpx.Client) -> None:
    refused = api.post(
        "/v1/jobs", files={"file": ("a.wav", bytes(9_000_000))}, headers={"Authorization": "Bearer cr_wrong"}
    )
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"


def test_pages_go_through_all_jobs_once(bob: httpx.Client, toy_audio: Path) -> None:
    made = [upload(bob, toy_audio / "silence_5s.flac")["id"] for _ in range(5)]
    found, cursor = [], None
    while True:
        page = bob.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [job["id"] for job in page["data"]]
        if (cursor := page["next"]) is None:
            break
    assert found == made[::-1]
    for job in made:
        wait_for(lambda j=job: bob.get(f"/v1/jobs/{j}").json()["state"] == "succeeded", 30.0, "it is done")
    calls = bob.get("/v1/calls", params={"limit": 3}).json()
    assert len(calls["data"]) == 3 and calls["next"]
    assert bob.get("/v1/calls", params={"cursor": calls["next"]}).json()["next"] is None
    silent = bob.get(f"/v1/calls/{calls['data'][0]['id']}/transcript").json()
    assert silent["segments"] == [] and silent["text"] == ""
    assert bob.get("/v1/jobs", params={"cursor": "nonsense"}).json()["error"]["code"] == "invalid_input"


def test_another_clients_things_are_not_there(
    ann: httpx.Client, bob: httpx.Client, root: httpx.Client, toy_audio: Path
) -> None:
    job = upload(ann, toy_audio / "en_short.wav")
    wait_for(lambda: ann.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded", 30.0, "it is done")
    for stranger in (bob, root):
        paths = [
            f"/v1/jobs/{job['id']}",
            *(f"/v1/calls/{job['call_id']}{end}" for end in ("", "/transcript", "/events")),
        ]
        answers = [stranger.get(path) for path in paths] + [stranger.post(f"/v1/jobs/{job['id']}/cancel")]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert job["id"] not in stranger.get("/v1/jobs").text and job["call_id"] not in stranger.get("/v1/calls").text
    assert ann.get(f"/v1/calls/{job['call_id']}").status_code == 200
