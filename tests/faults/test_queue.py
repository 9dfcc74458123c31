"""Jobs beside each other: slots, priorities that age, cancels that stop the engine and spare others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from callreel.measure.harness import ServerProcess, cpu_s, wait_for
from callreel.measure.synthetic import write_weights
from tests.faults.scene import WITHIN_S, counting_server, family, wait_until_gone
from tests.server.helpers import TOY_AUDIO, TOY_MODEL, caller, is_gone, served, upload

CANCEL_WITHIN_S = 2.0
LATE_S = 3.0  # that a test may be late with its second look on a busy machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Three slots, and windows that take a while."""
    folder = tmp_path_factory.mktemp("wide")
    with counting_server(folder, window_s=0.2, CALLREEL_JOBS_MAX_CONCURRENT="transcribe=3") as server:
        yield server


@pytest.fixture
def wide_api(wide: ServerProcess) -> Iterator[httpx.Client]:
    with caller(wide) as client:
        yield client


def engine_processes(server: ServerProcess) -> list[psutil.Process]:
    return [child for child in family(server) if "callreel.engines.process" in " ".join(child.cmdline())]


def test_jobs_run_side_by_side_on_one_engine_as_many_as_there_are_slots(
    wide: ServerProcess, wide_api: httpx.Client, long_recording: Path
) -> None:
    made = [upload(wide_api, long_recording)["id"] for _ in range(4)]

    def states() -> list[str]:
        return [wide_api.get(f"/v1/jobs/{job}").json()["state"] for job in made]

    wait_for(lambda: states() == ["running", "running", "running", "queued"], WITHIN_S, "three of four run")
    wait_for(lambda: len(engine_processes(wide)) == 2, WITHIN_S, "one engine for live, one for all three")
    wide_api.post(f"/v1/jobs/{made[0]}/cancel")
    wait_for(lambda: states()[3] == "running", WITHIN_S, "the fourth has its place")
    ended = [wide.finished_job(job) for job in made[1:]]
    assert [(job["state"], job["attempts"]) for job in ended] == [("succeeded", 1)] * 3
    texts = {wide.text(job["call_id"]) for job in ended}
    assert len(texts) == 1 and len(engine_processes(wide)) == 2


def test_a_cancel_spares_who_shares_the_engine(
    wide: ServerProcess, wide_api: httpx.Client, long_recording: Path
) -> None:
    stays = upload(wide_api, long_recording)["id"]
    for _ in range(3):
        goes = upload(wide_api, long_recording)["id"]
        wait_for(
            lambda job=goes: wide_api.get(f"/v1/jobs/{job}").json()["progress"].get("step") == "transcribe",
            WITHIN_S,
            "it shares the engine",
        )
        assert wide_api.post(f"/v1/jobs/{goes}/cancel").json()["state"] == "cancelled"
    done = wide.finished_job(stays)
    assert (done["state"], done["attempts"]) == ("succeeded", 1)
    assert len(wide.text(done["call_id"]).split()) > 100


def test_a_cancel_stops_the_engine_too(tmp_path: Path, long_recording: Path) -> None:
    """Made-up weights of a released size: a decode of theirs takes many seconds here, and none can be interrupted."""
    model = write_weights("base", tmp_path / "base", tokenizer_from=TOY_MODEL)
    flags = ("--engine", "whisper", "--model", str(model), "--live-engine", "tests.engines.fake_engines:load")
    with (
        served(tmp_path / "data", *flags, CALLREEL_JOBS_MAX_CONCURRENT="transcribe=1") as server,
        caller(server) as api,
    ):
        job = upload(api, long_recording, language="en")
        child = running_or_decoding(server, api, job["id"])
        engine = server.children()["batch"]
        answer = api.post(f"/v1/jobs/{job['id']}/cancel")
        cancelled_at = time.monotonic()
        assert answer.json()["state"] == "cancelled"
        wait_for(lambda: is_gone(child), CANCEL_WITHIN_S, "the job's process has ended")
        time.sleep(max(0.0, cancelled_at + CANCEL_WITHIN_S + LATE_S - time.monotonic()))
        assert burnt_s(server, over_s=1.0) < 0.3, "the engine works on for nobody"
        after = server.finished_job(upload(api, TOY_AUDIO / "silence_5s.flac")["id"])
        assert after["state"] == "succeeded"
        processes = [engine, *family(server)]
        server.stop()
        wait_until_gone(processes)


def running_or_decoding(server: ServerProcess, api: httpx.Client, job_id: str) -> psutil.Process:
    """The job's process, once its engine is at work on it."""

    def at_work() -> psutil.Process | None:
        children = server.children()
        job: dict[str, Any] = api.get(f"/v1/jobs/{job_id}").json()
        assert job["state"] in ("queued", "running"), job
        listened = job["progress"].get("step") in ("find speech", "transcribe")
        return children.get("job") if listened and "batch" in children and cpu_s(children["batch"]) > 0.5 else None

    child: psutil.Process = wait_for(at_work, WITHIN_S, "the engine is at work")
    wait_for(lambda: burnt_s(server, over_s=0.3) > 0.1, WITHIN_S, "it decodes")
    return child


def burnt_s(server: ServerProcess, *, over_s: float) -> float:
    """CPU seconds that the engine of files uses in such a time, whichever process it is."""
    before = {child.pid: cpu_s(child) for child in engine_processes(server)}
    time.sleep(over_s)
    return sum(cpu_s(child) - before.get(child.pid, 0.0) for child in engine_processes(server))


def test_low_priority_gets_its_turn_under_a_stream_of_high(tmp_path: Path) -> None:
    ageing = {"CALLREEL_JOBS_AGEING_S": "0.5", "CALLREEL_JOBS_MAX_CONCURRENT": "transcribe=1"}
    with counting_server(tmp_path, **ageing) as server, caller(server) as api:
        first = upload(api, TOY_AUDIO / "en_short.wav", priority="high")
        low = upload(api, TOY_AUDIO / "en_short.wav", priority="low")
        high = [first, upload(api, TOY_AUDIO / "en_short.wav", priority="high")]
        deadline = time.monotonic() + WITHIN_S
        while api.get(f"/v1/jobs/{low['id']}").json()["state"] in ("queued", "running"):
            queued = api.get("/v1/jobs", params={"state": "queued"}).json()["data"]
            if sum(job["priority"] == "high" for job in queued) < 3:  # there is always one more that is more urgent
                high.append(upload(api, TOY_AUDIO / "en_short.wav", priority="high"))
            assert time.monotonic() < deadline, "it starves"
            time.sleep(0.05)
        started = api.get(f"/v1/jobs/{low['id']}").json()["started_at"]
        ended = [api.get(f"/v1/jobs/{job['id']}").json() for job in high]
        assert ended[1]["finished_at"] <= started  # the younger high one was first
        assert any(job["started_at"] is None or job["started_at"] > started for job in ended)
