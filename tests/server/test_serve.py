"""The server process as a whole: how it starts, how it refuses to, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from callreel.accounts import keys
from callreel.audio.pcm import SAMPLE_RATE, seconds
from callreel.engines.catalogue import WEAK
from callreel.measure.harness import ServerProcess, play, wait_for
from callreel.measure.wer import compare
from callreel.server.serve import _first_client
from callreel.server.services import bearer
from callreel.storage.database import Database
from tests.server.helpers import (
    DEADLINE_S,
    TOY,
    accepted_samples,
    is_gone,
    long_file,
    recording,
    running_child,
    served,
    talking,
)

ENDS_WITHIN_S = 20.0


# -- who asks without a key


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_the_local_client_needs_no_key(tmp_path: Path, host: str) -> None:
    database = Database.open(tmp_path)
    local = asyncio.run(_first_client(database, host))
    assert local == database.submit(keys.ensure_local_client).result()
    assert not database.submit(keys.any_key).result()
    database.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "callreel.example"])
def test_beyond_loopback_a_first_key_is_made_and_shown_once(
    tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database.open(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(_first_client(database, host)) is None
        (shown,) = [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]
        assert asyncio.run(_first_client(database, host)) is None
    assert database.submit(lambda conn: keys.client_of_key(conn, str(shown))).result() is not None
    assert len(caplog.records) == 1
    database.close()


@pytest.mark.parametrize(
    ("header", "key"),
    [(None, None), ("", None), ("Bearer", None), ("Bearer  k ", "k"), ("BEARER k", "k"), ("Basic k", None)],
)
def test_a_bearer_key_is_read_from_its_header(header: str | None, key: str | None) -> None:
    assert bearer(header) == key


# -- starting


def test_without_whisper_it_starts_with_pocketsphinx_and_says_so(tmp_path: Path) -> None:
    with served(tmp_path, "--engine", "auto", "--model", "small", CALLREEL_MODELS_DIR=str(tmp_path / "none")) as server:
        health = server.get("/health")
        assert health["live"]["engine"] == "pocketsphinx"
        assert WEAK in health["warnings"] and any("small" in warning for warning in health["warnings"])

        async def run() -> list[str]:
            async with talking(server) as talk:
                await talk.end()
                await talk.until_closed()
                return [message["message"] for message in talk.said if message.get("status") == "WARNING"]

        assert set(asyncio.run(run())) == set(health["warnings"])
        assert WEAK in server.log()


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "callreel", "serve", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_what_keeps_it_from_starting_is_said_in_a_line(server: ServerProcess, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor() as pool:
        taken = str(other.getsockname()[1])
        http, live, weights = (
            ("--data-dir", str(tmp_path / "a")),
            ("--data-dir", str(tmp_path / "b")),
            ("--model", str(tmp_path)),
        )
        started = {
            "Another Callreel server holds this data folder": ("--data-dir", str(server.data), *TOY),
            f"Cannot listen on 127.0.0.1:{taken}": (*http, *TOY, "--port", taken, "--live-port", "0"),
            f"Cannot listen on 127.0.0.1:{taken}:": (*live, *TOY, "--port", "0", "--live-port", taken),
            "There is no whole Whisper model": ("--data-dir", str(tmp_path / "c"), "--engine", "whisper", *weights),
            "The setting 'port' (--port) is not right": ("--port", "70000"),
        }
        ends = pool.map(lambda flags: serve(*flags), started.values())
        refusals = dict(zip(started, ends, strict=True))
    for reason, ended in refusals.items():
        assert ended.returncode == 1, ended.stderr
        assert f"callreel: {reason}" in ended.stderr and "Traceback" not in ended.stderr
    assert server.get("/health")["status"] == "ok"


# -- ending


def family(server: ServerProcess) -> list[psutil.Process]:
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


@pytest.mark.slow
def test_a_polite_end_in_the_middle_of_everything_loses_nothing(tmp_path: Path) -> None:
    with served(tmp_path / "data", CALLREEL_LIVE_STALL_S="60") as server:
        file = long_file(tmp_path, copies=4)

        async def until_stopped() -> None:
            live = asyncio.create_task(play(server.live_url, recording("en_live_20s.flac"), uid="live", pace=4))
            call = await asyncio.to_thread(
                wait_for, lambda: (server.get("/v1/calls?external_id=live")["data"] or [None])[0], DEADLINE_S, "a call"
            )
            await asyncio.to_thread(
                wait_for, lambda: accepted_samples(server, call["id"]) > 8 * SAMPLE_RATE, DEADLINE_S, "8 s are accepted"
            )
            job = await asyncio.to_thread(server.transcribe, file)
            await asyncio.to_thread(running_child, server, job["id"])
            processes.extend(await asyncio.to_thread(family, server))
            calls.extend([call["id"], job["call_id"], job["id"]])
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)  # a watcher that would stay
            writer.write(f"GET /v1/calls/{call['id']}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readline()
            began = time.monotonic()
            await asyncio.to_thread(server.stop)
            took.append(time.monotonic() - began)
            writer.close()
            await live  # it was told to go away

        processes: list[psutil.Process] = []
        calls: list[str] = []
        took: list[float] = []
        asyncio.run(until_stopped())
        assert took[0] < ENDS_WITHIN_S
        assert len(processes) >= 4 and all(is_gone(process) for process in processes)
        assert "Traceback" not in server.log(), server.log()[-3000:]
        accepted_s = seconds(accepted_samples(server, calls[0]))
        server.start()
        assert server.finished_call(calls[0])["duration_s"] == pytest.approx(accepted_s, abs=0.001)
        spoken = (
            "thanks we have your order the delivery is tomorrow morning please check your email address and confirm"
        )
        found = compare(spoken, " ".join(server.text(calls[0]).split()[: len(spoken.split())]))
        assert found.doubled == 0 and found.deletions <= 1 and found.errors <= 3  # the toy model hears "euro" at times
        assert server.finished_job(calls[2])["state"] == "succeeded"
        assert server.text(calls[1]).count("julia can speak tomorrow evening") == 4


@pytest.mark.slow
def test_when_it_is_killed_no_child_stays(tmp_path: Path) -> None:
    with served(tmp_path / "data") as server:
        job = server.transcribe(long_file(tmp_path, copies=3))
        running_child(server, job["id"])
        processes = family(server)
        assert len(processes) == 4  # serve, live, batch, job
        server.kill()
        wait_for(lambda: all(is_gone(process) for process in processes), 5.0, "all have ended")
