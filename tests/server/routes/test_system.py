"""The server tells how it is, also when it is not well."""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path

import httpx
import pytest

from callreel import __version__
from callreel.measure.harness import ServerProcess, wait_for
from tests.server.helpers import DEADLINE_S, caller, served


def test_health_and_version(api: httpx.Client) -> None:
    health = api.get("/health").json()
    assert health["status"] == "ok" and health["live"] == {"engine": "whisper", "model": "whisper-toy"}
    assert health["warnings"] == [] and health["version"] == __version__
    assert api.get("/version").json() == {
        "version": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def test_a_server_that_is_well_is_ready(api: httpx.Client) -> None:
    answer = api.get("/ready")
    assert answer.status_code == 200 and answer.json() == {"ready": True, "reasons": []}


def test_without_its_live_engine_it_is_not_ready_and_then_is_again(tmp_path: Path) -> None:
    with served(tmp_path, "--engine", "pocketsphinx") as server, caller(server) as api:
        child = server.children()["live"]
        os.kill(child.pid, signal.SIGSTOP)  # as while a model loads: it is there, and says nothing
        answer = api.get("/ready")
        os.kill(child.pid, signal.SIGCONT)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert answer.json() == {"ready": False, "reasons": ["The live engine is being started"]}
        wait_for(lambda: api.get("/ready").status_code == 200, DEADLINE_S, "it is ready again")


def test_the_machine(api: httpx.Client, server: ServerProcess) -> None:
    system = api.get("/v1/system").json()
    assert 0 <= system["cpu_percent"] <= 100 and 0 < system["memory_percent"] <= 100
    assert system["memory_available_gb"] > 0 and system["disk_free_gb"] > 0 and 0 < system["disk_percent"] <= 100
    assert isinstance(system["gpus"], list)


@pytest.mark.parametrize(
    "name",
    [
        "event_loop_lag_seconds",
        "requests_total",
        "request_duration_seconds",
        "task_queue_length",
        "gpu_memory_usage_bytes",
        "live_streams",
        "live_audio_seconds_total",
        "live_decode_seconds",
        "live_windows_total",
        "live_final_wait_seconds",
        "engine_restarts_total",
        "jobs_total",
        "job_duration_seconds",
        "transcription_rtfx",
    ],
)
def test_a_metric_has_its_name(api: httpx.Client, name: str) -> None:
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert name in {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}


def test_the_queue_has_a_length(api: httpx.Client) -> None:
    assert 'task_queue_length{kind="transcribe"} ' in api.get("/metrics").text
