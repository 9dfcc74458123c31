"""Another program holds the database: who asks waits, then is told; nothing that was done is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from callreel.storage.sqlite import BUSY_TIMEOUT_S
from tests.faults.scene import WITHIN_S, counting_server, document, is_whole, locked_database
from tests.server.helpers import TOY_AUDIO, caller, upload

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with counting_server(tmp_path_factory.mktemp("database"), window_s=0.1) as server:
        yield server
        server.stop()
        assert is_whole(server.data)


@pytest.fixture
def api(server: ServerProcess) -> Iterator[httpx.Client]:
    with caller(server) as client:
        yield client


def test_a_short_lock_is_waited_for(server: ServerProcess, api: httpx.Client) -> None:
    job = upload(api, TOY_AUDIO / "en_short.wav")
    server.finished_job(job["id"])
    answers: list[httpx.Response] = []
    with locked_database(server.data):
        asking = threading.Thread(
            target=lambda: answers.append(api.patch(f"/v1/calls/{job['call_id']}", json={"title": "locked"}))
        )
        asking.start()
        with caller(server) as other:
            assert other.get("/health").status_code == 200 and other.get("/v1/calls").status_code == 200  # reads go on
        assert asking.is_alive()
    asking.join(WITHIN_S)
    assert answers[0].status_code == 200 and answers[0].json()["title"] == "locked"


def test_a_long_lock_is_told_and_a_result_outlasts_it(
    server: ServerProcess, api: httpx.Client, long_recording: Path
) -> None:
    plain = server.finished_job(upload(api, long_recording)["id"])
    job = upload(api, long_recording)
    wait_for(
        lambda: api.get(f"/v1/jobs/{job['id']}").json()["progress"].get("step") == "transcribe",
        WITHIN_S,
        "it is at work",
    )
    with locked_database(server.data):
        began = time.monotonic()
        refused = api.patch(f"/v1/calls/{job['call_id']}", json={"title": "never"})
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "storage_unavailable"
        assert time.monotonic() - began > BUSY_TIMEOUT_S - 1
        with (TOY_AUDIO / "en_short.wav").open("rb") as file:
            lost = api.post("/v1/jobs", files={"file": file})
        assert lost.status_code == 503
        wait_for(lambda: "job" not in server.children(), WITHIN_S, "the job's process has said all")
    done = server.finished_job(job["id"])
    assert (done["state"], done["attempts"]) == ("succeeded", 1)
    assert document(server, job["call_id"]) == document(server, plain["call_id"])
    objects = {path.name for path in (server.data / "objects" / "calls").iterdir()}
    calls = {call["id"] for call in api.get("/v1/calls").json()["data"]}
    assert objects == calls  # of the upload that could not be stored no file stays
    assert api.patch(f"/v1/calls/{job['call_id']}", json={"title": "again"}).status_code == 200
