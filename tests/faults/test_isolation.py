"""Every route with an id in its path, asked by a stranger for somebody else's: there is nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.faults.scene import WITHIN_S
from tests.server.helpers import TOY_AUDIO, caller, make_clients, served, upload

BODIES: dict[str, Any] = {  # what changes need to be understood at all
    "PATCH /v1/calls/{call_id}": {"title": "mine now"},
    "PATCH /v1/calls/{call_id}/segments/{segment_id}": {"text": "mine now"},
    "PATCH /v1/webhooks/{webhook_id}": {"state": "paused"},
}
QUERIES = {"GET /v1/search": {"q": "account"}}
NOBODYS = ("/v1/models/", "/v1/keys/")  # of the server, or for admins

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("isolation")
    return folder, make_clients(folder, root="admin", ann="user", bob="user")


@pytest.fixture(scope="module")
def server(keys: tuple[Path, dict[str, str]]) -> Iterator[ServerProcess]:
    with served(keys[0]) as server:
        yield server


@pytest.fixture(scope="module")
def things(server: ServerProcess, keys: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Of ann's: the ids that stand in paths."""
    with caller(server, keys[1]["ann"]) as ann:
        job = upload(ann, TOY_AUDIO / "en_short.wav")
        wait_for(lambda: ann.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded", WITHIN_S, "it is done")
        document = ann.get(f"/v1/calls/{job['call_id']}/transcript").json()
        hook = ann.post("/v1/webhooks", json={"url": "https://example.com/"}).json()
        return {
            "job_id": job["id"],
            "task_id": job["id"],
            "call_id": job["call_id"],
            "transcript_id": document["transcript"],
            "segment_id": document["segments"][0]["id"],
            "webhook_id": hook["id"],
        }


def routes(api: httpx.Client) -> list[tuple[str, str]]:
    paths = api.get("/openapi.json").json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods if "{" in path]
    return [(method, path) for method, path in found if not path.startswith(NOBODYS)]


def ask(api: httpx.Client, method: str, path: str, things: dict[str, str]) -> httpx.Response:
    url = re.sub(r"\{(\w+)(:path)?\}", lambda m: things[m[1]], path)  # an id that this test does not know fails it
    with api.stream(method, url, json=BODIES.get(f"{method} {path}")) as answer:
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
        return answer


def test_strangers_find_nothing(
    server: ServerProcess, keys: tuple[Path, dict[str, str]], things: dict[str, str]
) -> None:
    with caller(server, keys[1]["ann"]) as ann:
        asked = routes(ann)
        assert len(asked) > 15
        for stranger in ("bob", "root"):
            with caller(server, keys[1][stranger]) as api:
                for method, path in asked:
                    answer = ask(api, method, path, things)
                    assert answer.status_code == 404, (stranger, method, path, answer.status_code)
                for path in ("/v1/jobs", "/v1/calls", "/v1/webhooks", "/v1/search?q=account", "/audio/tasks/active"):
                    text = api.get(path).text
                    assert not any(id in text for id in things.values()), (stranger, path)
        with caller(server) as nobody:
            assert {ask(nobody, method, path, things).status_code for method, path in asked} == {401}
        # The same requests of the owner find what they ask for; those that delete it come last.
        asked.remove(("DELETE", "/audio/task/{task_id}"))  # the job under its other name
        for method, path in sorted(asked, key=lambda route: (route[0] == "DELETE", -route[1].count("/"))):
            answer = ask(ann, method, path, things)
            assert answer.status_code not in (401, 403, 404, 422), (method, path, answer.status_code)
