"""The helpline AI service's paths: its clients' uploads, polls and streams, over the same jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.server.helpers import DEADLINE_S, long_file, running_child


@pytest.fixture
def spoken(references: dict[str, Any]) -> str:
    return str(references["en_short.wav"]["tracks"]["mono"]["text"])


def send(api: httpx.Client, file: Path, path: str = "/audio/process", **form: str) -> httpx.Response:
    with file.open("rb") as opened:
        return api.post(path, files={"audio": (file.name, opened)}, data=form)


def completed(api: httpx.Client, task_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        task: dict[str, Any] = api.get(f"/audio/task/{task_id}").json()
        assert task["status"] in ("queued", "processing", "completed")
        return task if task["status"] == "completed" else None

    task: dict[str, Any] = wait_for(ended, DEADLINE_S, "the task is completed")
    return task


def test_a_task_is_asked_for_until_it_is_completed(api: httpx.Client, toy_audio: Path, spoken: str) -> None:
    asked = {"language": "auto", "include_translation": "true", "include_insights": "false", "background": "true"}
    made = send(api, toy_audio / "en_short.wav", **asked)
    task = made.json()
    assert (made.status_code, task["status"]) == (202, "queued") and "seconds" in task["estimated_time"]
    assert task["status_endpoint"] == f"/audio/task/{task['task_id']}"
    done = completed(api, task["task_id"])
    result = done["result"]
    assert (done["progress"], done["error"], result["transcript"]) == (100, None, spoken)
    assert result["audio_info"]["filename"] == "en_short.wav" and result["audio_info"]["language_detected"] == "en"
    assert result["processing_steps"]["transcription"]["status"] == "completed"
    assert "translation" not in result and "no translation" in result["warnings"][-1]
    assert api.delete(f"/audio/task/{task['task_id']}").json()["status"] == "success"
    assert api.get(f"/audio/task/{task['task_id']}").status_code == 404


def test_in_the_foreground_the_answer_is_the_result(api: httpx.Client, toy_audio: Path, spoken: str) -> None:
    done = send(api, toy_audio / "en_short.wav", background="false", language="en").json()
    assert (done["status"], done["result"]["transcript"]) == ("completed", spoken)
    assert api.get(f"/audio/task/{done['task_id']}").json()["result"] == done["result"]


def test_a_task_is_seen_at_work_and_cancelled(server: ServerProcess, api: httpx.Client, tmp_path: Path) -> None:
    task_id = send(api, long_file(tmp_path, copies=6)).json()["task_id"]
    running_child(server, task_id)
    task = api.get(f"/audio/task/{task_id}").json()
    assert (task["status"], task["current_step"]) == ("processing", "transcribe") and 0 < task["progress"] < 100
    assert task_id in [one["task_id"] for one in api.get("/audio/tasks/active").json()["active_tasks"]]
    queue = api.get("/audio/queue/status").json()
    assert queue["queue_stats"]["active_tasks"] == 1 and queue["workers"] == 1
    (worker, *_) = [w for w in api.get("/audio/workers/status").json()["workers"] if "transcribe" in w["name"]]
    assert (worker["current_load"], worker["max_concurrency"]) == (1, 1)
    assert api.delete(f"/audio/task/{task_id}").json()["task_id"] == task_id
    task = api.get(f"/audio/task/{task_id}").json()
    assert (task["status"], task["error"]) == ("failed", "It was cancelled")


def frames(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line[6:])


def test_the_stream_goes_step_by_step(api: httpx.Client, toy_audio: Path, references: dict[str, Any]) -> None:
    with (toy_audio / "en_digits.flac").open("rb") as file:
        request = {"files": {"audio": file}, "data": {"language": "en"}}
        with api.stream("POST", "/audio/process-stream-realtime", **request) as answer:  # type: ignore[arg-type]
            seen = list(frames(answer))
    assert [seen[0]["step"], seen[0]["progress"]] == ["started", 5]
    assert [seen[-1]["step"], seen[-1]["progress"]] == ["completed", 100]
    between = seen[1:-1]
    assert {frame["step"] for frame in between} == {"transcription"}
    assert all(10 <= frame["progress"] <= 30 for frame in between)
    partial = [frame["partial_result"] for frame in between if "partial_result" in frame]
    assert [part["chunk_index"] for part in partial] == list(range(1, len(partial) + 1))
    assert " ".join(part["transcript_chunk"] for part in partial) == seen[-1]["result"]["transcript"]
    assert len({frame["task_id"] for frame in seen}) == 1 and all("timestamp" in frame for frame in seen)


def test_a_stream_that_fails_says_why(api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound" * 99)
    *_, last = frames(send(api, tmp_path / "a.wav", "/audio/process-stream-realtime"))
    assert (last["step"], last["error"]) == ("failed", "unreadable_media") and last["message"]


def test_what_is_wrong_is_refused(api: httpx.Client, toy_audio: Path) -> None:
    refused = send(api, toy_audio / "en_short.wav", language="klingon")
    assert refused.status_code == 400 and refused.json()["error"]["detail"]["problems"][0]["field"] == "language"
    refused = api.post("/audio/process", files={"file": ("a.wav", b"x")})
    assert refused.json()["error"]["detail"]["problems"][0]["field"] == "audio"
