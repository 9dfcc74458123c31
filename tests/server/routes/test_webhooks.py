"""/v1/webhooks against a real server, its end and its next start."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.net.sites import HERE, Exchange, Site, site
from tests.server.helpers import DEADLINE_S, caller, served, upload


class Receiver:
    """Takes what it is sent, unless it is told to refuse or to keep its sender waiting."""

    def __init__(self) -> None:
        self.status = 200
        self.waits = False
        self.reached = threading.Event()

    def __call__(self, e: Exchange) -> None:
        self.reached.set()
        if self.waits:
            e.wait_until_hung_up()
        else:
            e.answer(self.status)


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture(scope="module")
def there(receiver: Receiver) -> Iterator[Site]:
    with site(receiver) as running:
        yield running


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that may send to this machine."""
    with served(tmp_path_factory.mktemp("telling"), CALLREEL_SOURCES_ALLOW_NETWORKS=",".join(HERE)) as server:
        yield server


@pytest.fixture
def local(telling: ServerProcess) -> Iterator[httpx.Client]:
    with caller(telling) as client:
        yield client


@pytest.fixture
def hook(local: httpx.Client, there: Site) -> Iterator[dict[str, Any]]:
    made = local.post("/v1/webhooks", json={"url": there.url("/hook")})
    assert made.status_code == 201, made.text
    there.seen.clear()
    yield made.json()
    local.delete(f"/v1/webhooks/{made.json()['id']}")


def broken_job(api: httpx.Client, tmp_path: Path) -> str:
    """A job that fails at once."""
    text = tmp_path / "text.wav"
    text.write_text("no audio")
    return str(upload(api, text)["id"])


def deliveries(api: httpx.Client, hook: dict[str, Any]) -> list[dict[str, Any]]:
    answer = api.get(f"/v1/webhooks/{hook['id']}/deliveries")
    assert answer.status_code == 200
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def test_a_webhook_is_made_listed_paused_and_deleted(local: httpx.Client, hook: dict[str, Any]) -> None:
    shown = {name: value for name, value in hook.items() if name != "secret"}
    assert shown.keys() == {"id", "url", "events", "state", "created_at"}
    assert hook["secret"].startswith("whsec_")
    assert local.get("/v1/webhooks").json() == {"data": [shown], "next": None}
    assert local.get(f"/v1/webhooks/{hook['id']}").json() == shown
    assert local.patch(f"/v1/webhooks/{hook['id']}", json={"state": "paused"}).json()["state"] == "paused"
    assert deliveries(local, hook) == []
    assert local.delete(f"/v1/webhooks/{hook['id']}").status_code == 204
    for path in (f"/v1/webhooks/{hook['id']}", f"/v1/webhooks/{hook['id']}/deliveries"):
        assert local.get(path).json()["error"]["code"] == "not_found"
    assert local.delete(f"/v1/webhooks/{hook['id']}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"url": "http://10.0.0.1/"}, 403, "address_not_allowed"),
        ({"url": "http://[::ffff:169.254.169.254]/"}, 403, "address_not_allowed"),
        ({"url": "file:///etc/passwd"}, 400, "invalid_input"),
        ({"url": "https://example.com/", "events": ["weather"]}, 400, "invalid_input"),
        ({"url": "https://example.com/", "events": []}, 400, "invalid_input"),
        ({"url": "https://example.com/", "sort": 1}, 400, "invalid_input"),
        ({}, 400, "invalid_input"),
    ],
)
def test_what_cannot_be_is_refused(local: httpx.Client, body: dict[str, Any], status: int, code: str) -> None:
    answer = local.post("/v1/webhooks", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_the_end_of_a_job_arrives(
    telling: ServerProcess, local: httpx.Client, hook: dict[str, Any], there: Site, tmp_path: Path, toy_audio: Path
) -> None:
    broken = broken_job(local, tmp_path)
    good = upload(local, toy_audio / "en_short.wav")["id"]
    wait_for(lambda: len(there.seen) == 2, DEADLINE_S, "both jobs are told of")
    told = {event["data"]["id"]: event for event in (json.loads(e.body) for e in there.seen)}
    for job_id, state in ((broken, "failed"), (good, "succeeded")):
        assert told[job_id]["type"] == "job"
        assert told[job_id]["data"] == telling.get(f"/v1/jobs/{job_id}")
        assert told[job_id]["data"]["state"] == state
    wait_for(
        lambda: [d["state"] for d in deliveries(local, hook)] == ["delivered"] * 2, DEADLINE_S, "both are noted as sent"
    )
    newest = deliveries(local, hook)[0]
    assert newest.keys() == {
        "id", "webhook_id", "event", "payload", "state", "attempts", "status", "error", "created_at", "at",
    }  # fmt: skip


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_what_was_not_sent_survives_the_server(
    telling: ServerProcess,
    hook: dict[str, Any],
    receiver: Receiver,
    there: Site,
    tmp_path: Path,
    ending: str,
) -> None:
    receiver.waits, _ = True, receiver.reached.clear()
    try:
        with caller(telling) as api:
            job_id = broken_job(api, tmp_path)
            assert receiver.reached.wait(DEADLINE_S)  # it is in the middle of being sent
    finally:
        getattr(telling, ending)()
        receiver.waits = False
    there.seen.clear()
    telling.start()
    wait_for(lambda: there.seen, 2 * DEADLINE_S, "it is sent again")
    assert json.loads(there.seen[0].body)["data"]["id"] == job_id
    with caller(telling) as api:
        wait_for(lambda: deliveries(api, hook)[0]["state"] == "delivered", DEADLINE_S, "it is noted as sent")
        assert deliveries(api, hook)[0]["attempts"] == (2 if ending == "kill" else 1)


def test_webhooks_are_seen_by_their_owner_alone(ann: httpx.Client, bob: httpx.Client) -> None:
    made = ann.post("/v1/webhooks", json={"url": "https://example.com/hook"}).json()
    assert bob.get("/v1/webhooks").json()["data"] == []
    assert bob.get(f"/v1/webhooks/{made['id']}").status_code == 404
    assert bob.delete(f"/v1/webhooks/{made['id']}").status_code == 404
    assert ann.delete(f"/v1/webhooks/{made['id']}").status_code == 204
