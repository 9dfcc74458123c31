"""Calls: found by what is known of them, changed, and deleted with everything under them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.server.helpers import DEADLINE_S, long_file, recording, running_child, talking, upload


@pytest.fixture
def call(server: ServerProcess, api: httpx.Client, toy_audio: Path) -> dict[str, Any]:
    job = server.finished_job(upload(api, toy_audio / "silence_5s.flac")["id"])
    found: dict[str, Any] = api.get(f"/v1/calls/{job['call_id']}").json()
    return found


def files(server: ServerProcess, call_id: str) -> list[Path]:
    return [path for place in ("objects/calls", "live", "work") for path in server.data.glob(f"{place}/{call_id}*")]


def ids(api: httpx.Client, **query: Any) -> list[str]:
    answer = api.get("/v1/calls", params=query)
    assert answer.status_code == 200, answer.text
    return [call["id"] for call in answer.json()["data"]]


def test_a_call_is_changed_and_found_by_what_it_was_given(api: httpx.Client, call: dict[str, Any]) -> None:
    path = f"/v1/calls/{call['id']}"
    given = {"title": "A complaint", "external_id": "crm-7", "labels": {"team": "north", "lang": "en"}}
    changed = api.patch(path, json={**given, "speakers": {"agent": "Julia"}}).json()
    assert changed == api.get(path).json() == {**call, **given, "speakers": {"agent": "Julia"}}
    partly = api.patch(path, json={"labels": {"lang": None, "vip": "yes"}}).json()
    assert partly["labels"] == {"team": "north", "vip": "yes"} and partly["title"] == "A complaint"
    assert ids(api, external_id="crm-7") == [call["id"]]
    assert ids(api, label=["team=north", "vip=yes"]) == [call["id"]]
    assert ids(api, label=["team=north", "vip=no"]) == []
    assert api.patch(path, json={"external_id": None, "labels": {"team": None, "vip": None}}).json()["labels"] == {}


def test_calls_are_found_by_state_and_time(api: httpx.Client, call: dict[str, Any]) -> None:
    at = call["created_at"]
    assert call["id"] in ids(api, state="done") and call["id"] not in ids(api, state="failed")
    assert call["id"] in ids(api, **{"from": at}) and call["id"] not in ids(api, to=at)
    assert call["id"] in ids(api, **{"from": "2020-01-01T00:00:00+02:00", "to": "2100-01-01"})


@pytest.mark.parametrize(
    "query",
    [
        {"from": "yesterday"},
        {"to": "0001-01-01T00:00:00+14:00"},
        {"label": "team"},
        {"label": "=x"},
        {"label": "a b=c"},
        {"state": "asleep"},
    ],
)
def test_what_cannot_be_looked_for_is_refused(api: httpx.Client, query: dict[str, str]) -> None:
    refused = api.get("/v1/calls", params=query)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "invalid_input"


@pytest.mark.parametrize(
    "change",
    [
        {"title": "x" * 201},
        {"title": None},
        {"labels": {"a b": "c"}},
        {"labels": {"a": 5}},
        {"speakers": {"agent": "x" * 201}},
        {"state": "done"},
        [],
    ],
)
def test_what_cannot_be_changed_is_refused(api: httpx.Client, call: dict[str, Any], change: Any) -> None:
    refused = api.patch(f"/v1/calls/{call['id']}", json=change)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "invalid_input"
    assert api.get(f"/v1/calls/{call['id']}").json() == call


def test_a_deleted_call_is_gone_with_everything_under_it(
    server: ServerProcess, api: httpx.Client, call: dict[str, Any]
) -> None:
    job_id = call["transcripts"][0]["job_id"]
    assert files(server, call["id"])
    assert api.delete(f"/v1/calls/{call['id']}").status_code == 204
    for path in (f"/v1/calls/{call['id']}", f"/v1/calls/{call['id']}/transcript", f"/v1/jobs/{job_id}"):
        assert api.get(path).status_code == 404
    assert files(server, call["id"]) == []
    assert api.delete(f"/v1/calls/{call['id']}").status_code == 404


def test_a_call_at_work_is_stopped_and_deleted(server: ServerProcess, api: httpx.Client, tmp_path: Path) -> None:
    job = upload(api, long_file(tmp_path, copies=6))
    running_child(server, job["id"])
    assert api.delete(f"/v1/calls/{job['call_id']}").status_code == 204
    wait_for(lambda: "job" not in server.children(), DEADLINE_S, "its process has ended")
    wait_for(lambda: not list((server.data / "work").iterdir()), DEADLINE_S, "its scratch folder is gone")
    assert api.get(f"/v1/jobs/{job['id']}").status_code == 404 and files(server, job["call_id"]) == []
    assert "Traceback" not in server.log()


def test_a_live_call_is_not_deleted_until_it_ends(server: ServerProcess, api: httpx.Client) -> None:
    async def run() -> str:
        async with talking(server, uid="deleted") as talk:
            await talk.send(recording("en_short.wav"))
            (live,) = (await asyncio.to_thread(ids, api, external_id="deleted"),)
            refused = await asyncio.to_thread(api.delete, f"/v1/calls/{live[0]}")
            assert refused.status_code == 409 and refused.json()["error"]["code"] == "conflict"
            await talk.end()
            await talk.until_closed()
            return live[0]

    call_id = asyncio.run(run())
    server.finished_call(call_id)
    assert files(server, call_id)
    assert api.delete(f"/v1/calls/{call_id}").status_code == 204
    assert files(server, call_id) == []


def test_another_clients_call_is_not_there(
    guarded: ServerProcess, ann: httpx.Client, bob: httpx.Client, toy_audio: Path
) -> None:
    call_id = upload(ann, toy_audio / "silence_5s.flac")["call_id"]
    for answer in (bob.patch(f"/v1/calls/{call_id}", json={"title": "x"}), bob.delete(f"/v1/calls/{call_id}")):
        assert answer.status_code == 404
    assert ann.delete(f"/v1/calls/{call_id}").status_code == 204
