"""`callreel doctor` and its checks: on this machine, and on ones that lack something."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callreel.cli import machine
from callreel.cli.machine import Finding
from tests.cli.running import callreel, inside

NOBODY = "http://127.0.0.1:1"  # a hub that does not answer
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def found(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def tool(folder: Path, name: str, says: str, code: int = 0) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_this_machine_is_looked_at(tmp_path: Path, toy_model: Path) -> None:
    words = ("doctor", "--data-dir", tmp_path, "--port", "0", "--live-port", "0")
    toy = ("--engine", "whisper", "--model", toy_model)
    ended = callreel(*words, *toy, "--json")
    said: dict[str, Any] = json.loads(ended.stdout)
    assert (ended.returncode, said["ok"]) == (0, True), said
    names = [finding["name"] for finding in said["findings"]]
    assert {"cores", "memory", "disk", "gpu", "port", "live port", "ffmpeg", "chromium", "python", "clock"} <= {*names}
    assert all(finding["status"] in ("ok", "warn") for finding in said["findings"])
    assert all(finding["advice"] for finding in said["findings"] if finding["status"] == "warn")
    shown = callreel(*words, *toy)
    assert shown.returncode == 0 and all(name in shown.stdout for name in names)


def test_what_prevents_running_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = callreel(
            "doctor", "--data-dir", tmp_path / "file" / "data", "--port", str(port), "--device", "cuda", **NO_GPU
        )
    assert ended.returncode == 1 and ended.stderr == ""
    failed = [line for line in ended.stdout.splitlines() if line.startswith("fail")]
    assert [re.split(r"  +", line)[1] for line in failed] == ["data folder", "gpu", "port"]
    assert "--port" in ended.stdout and "--data-dir" in ended.stdout


@pytest.mark.parametrize(
    ("value", "status", "advised"),
    [(0.5, "fail", "at least 1 cores"), (2, "warn", "minimum is 4"), (4, "ok", "8 cores"), (8, "ok", "")],
)
def test_a_machine_is_held_against_a_minimum_and_a_recommendation(value: float, status: str, advised: str) -> None:
    finding = machine._against("cores", value, str(value), 4, 8, "cores", 1)
    assert finding.status == status and advised in finding.advice and bool(advised) == bool(finding.advice)


def test_a_container_has_what_its_group_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("500000000\n")
    assert found(machine.cores())["cores"].found == "0.5"
    memory = found(machine.memory())["memory"]
    assert (memory.found, memory.status) == ("500 MB", "fail")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert float(found(machine.cores())["cores"].found) >= 1
    assert found(machine.memory())["memory"].found != "500 MB"


def test_the_port_of_a_server_of_ours_is_no_failure(tmp_path: Path) -> None:
    version = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\nConnection: close\r\n\r\n{"version": "9.9"}'
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]

        def answer() -> None:
            connection, _ = ours.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(version)

        answering = threading.Thread(target=answer)
        answering.start()
        finding = found(machine.ports("127.0.0.1", port, 0))["port"]
        answering.join()
    assert finding.status == "ok" and "Callreel server (9.9)" in finding.found


def test_a_card_that_cannot_be_used_is_a_warning(tools: Path) -> None:
    tool(tools, "nvidia-smi", "NVIDIA X1, 81920 MiB, 550.1")
    finding = found(machine.gpu("auto"))["gpu"]
    assert finding.status in ("ok", "warn") and "NVIDIA X1" in finding.found  # ok where there is a real one
    tool(tools, "nvidia-smi", "no devices were found", code=6)
    assert "no devices" not in found(machine.gpu("auto"))["gpu"].found


def test_a_missing_program_names_its_package(tools: Path) -> None:
    tool(tools, "ffmpeg", "")
    findings = found(machine.programs())
    assert findings["ffmpeg"].found == str(tools / "ffmpeg") and not findings["ffmpeg"].advice
    assert findings["xvfb"].advice == "sudo apt-get install xvfb"
    assert {finding.status for finding in findings.values()} == {"ok"}


@pytest.mark.parametrize(("says", "status"), [("yes", "ok"), ("no", "warn")])
def test_the_clock(tools: Path, monkeypatch: pytest.MonkeyPatch, says: str, status: str) -> None:
    assert found(machine.clock())["clock"].status == "ok"  # nobody here who knows
    tool(tools, "timedatectl", says)
    assert found(machine.clock())["clock"].status == status
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert found(machine.clock())["clock"].status == "fail"


def test_a_full_disk_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_DISK", 10**18)
    assert found(machine.disk(tmp_path / "not" / "yet"))["disk"].status == "fail"
    assert "made by the first start" in found(machine.disk(tmp_path / "not"))["data folder"].found


def test_models_are_looked_for_where_they_are_needed(tmp_path: Path, toy_model: Path) -> None:
    def models(*flags: str | Path, **environment: str) -> dict[str, tuple[str, str]]:
        reach = ("--data-dir", tmp_path, "--port", "0", "--live-port", "0", "--json")
        said = json.loads(inside("doctor", *reach, *flags, CALLREEL_MODELS_HUB_URL=NOBODY, **environment).stdout)
        return {f["name"]: (f["status"], f["advice"]) for f in said["findings"] if "model" in f["name"]}

    assert models("--engine", "whisper", "--model", toy_model) == {"model": ("ok", "")}
    assert models("--engine", "whisper", "--model", "tiny") == {"model": ("warn", "callreel models pull tiny")}
    offline = models("--engine", "whisper", "--model", "tiny", CALLREEL_MODELS_DOWNLOAD="false")
    assert offline == {"model": ("fail", "callreel models pull tiny")}
    assert models("--engine", "whisper", "--model", "tny")["model"][0] == "fail"
    both = models("--engine", "auto", "--live-model", toy_model)
    assert both["live model"] == ("ok", "") and both["model of files"][0] == "warn"
    assert "callreel models pull base" in both["model of files"][1]
    assert "CALLREEL_OPENAI_URL" in models("--engine", "openai")["model"][1]
