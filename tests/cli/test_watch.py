"""`callreel watch`: a real folder, a real server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from callreel.client import Client
from callreel.measure.harness import ServerProcess, free_port, wait_for
from tests.cli.running import DEADLINE_S, callreel, refused

QUICK = ("--stable", "0", "--every", "0.1")


@pytest.fixture
def calls(tmp_path: Path, toy_audio: Path) -> Path:
    folder = tmp_path / "calls"
    folder.mkdir()
    shutil.copy(toy_audio / "en_short.wav", folder / "ann.wav")
    return folder


def test_once_imports_what_is_there_and_says_so(calls: Path, server: ServerProcess, tmp_path: Path) -> None:
    (calls / "noise.mp3").write_bytes(b"no sound" * 99)
    words = ("watch", calls, "--once", "--after", "move", "--data-dir", tmp_path / "data", *QUICK)
    url = f"http://127.0.0.1:{server.port}"
    options = ("--labels", r"(?P<agent>\w+)\.wav", "--channels", "split", "--speakers", "ann", "--priority", "low")
    ended = callreel(*words, *options, "--url", url)
    assert ended.returncode == 1, ended  # the noise
    assert "ann.wav: done, call " in ended.stdout and "noise.mp3: not imported: " in ended.stdout
    assert (calls / "done" / "ann.wav").exists() and (calls / "failed" / "noise.mp3").exists()
    call_id = ended.stdout.split("ann.wav: done, call ")[1].split()[0]
    with Client(url) as client:
        call = client.call(call_id)
        assert (call["title"], call["labels"]) == ("ann.wav", {"agent": "ann"}) and client.transcript(call_id, "txt")
    again = callreel(*words, CALLREEL_URL=url)
    assert again.returncode == 0 and again.stdout.count("\n") == 1


def test_once_does_not_wait_for_a_call_that_goes_on(tmp_path: Path, server: ServerProcess) -> None:
    words = ("watch", tmp_path, "--once", *QUICK, "--data-dir", tmp_path, "--url", f"http://127.0.0.1:{server.port}")
    with (tmp_path / "call.wav").open("wb"):
        ended = callreel(*words)
    assert ended.returncode == 0 and "call.wav" not in ended.stdout


def test_it_waits_for_its_server_and_ends_politely(calls: Path, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "callreel", "watch", str(calls), *QUICK, "--url", nobody]
    with subprocess.Popen(
        command,
        env={**os.environ, "CALLREEL_DATA_DIR": str(tmp_path / "data")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "does not answer" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0 and process.stderr.read() == ""


def test_it_goes_on_when_files_come(calls: Path, server: ServerProcess, tmp_path: Path, toy_audio: Path) -> None:
    url, out = f"http://127.0.0.1:{server.port}", tmp_path / "out"
    command = [sys.executable, "-m", "callreel", "watch", str(calls), *QUICK, "--url", url]
    environment = {**os.environ, "CALLREEL_DATA_DIR": str(tmp_path / "data")}
    with out.open("w") as file, subprocess.Popen(command, env=environment, stdout=file) as process:
        wait_for(lambda: "ann.wav: sent" in out.read_text(), DEADLINE_S, "the first file is sent")
        shutil.copy(toy_audio / "sw_short.flac", calls / "bob.flac")
        wait_for(lambda: "bob.flac: done" in out.read_text(), DEADLINE_S, "the second is done")
        busy = refused(callreel("watch", calls, "--once", "--data-dir", tmp_path / "data", "--url", url))
        assert "Another `callreel watch`" in busy[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


def test_what_cannot_be_is_said(calls: Path, server: ServerProcess, tmp_path: Path) -> None:
    data = ("--data-dir", tmp_path / "data")
    for wrong in ("(", "no-group"):
        assert "--labels" in refused(callreel("watch", calls, "--labels", wrong), code=2)[0]
    ended = callreel("watch", calls, "--once", *QUICK, *data, "--url", f"http://127.0.0.1:{free_port()}")
    assert ended.returncode == 1 and "does not answer" in ended.stderr
    stranger = ("--url", f"http://127.0.0.1:{server.port}", "--key", "cr_wrong")
    ended = callreel("watch", calls, *QUICK, *data, *stranger)
    assert ended.returncode == 1 and "API key" in ended.stderr and "Traceback" not in ended.stderr
