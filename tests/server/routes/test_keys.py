"""Keys through the API: who may, what a new one changes, and how one ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess
from tests.server.helpers import caller, served


def test_the_first_key_closes_the_door_and_the_last_one_opens_it(tmp_path: Path) -> None:
    with served(tmp_path, "--engine", "pocketsphinx") as server, caller(server) as local:
        assert local.get("/v1/keys").json() == {"data": [], "next": None}
        refused = local.post("/v1/keys", json={"name": "ann"})
        assert refused.status_code == 400 and "admin" in refused.json()["error"]["message"]
        made = local.post("/v1/keys", json={"name": "root", "role": "admin"})
        assert made.status_code == 201 and made.json()["key"].startswith("cr_") and made.json()["active"]
        assert local.get("/v1/jobs").status_code == 401
        with caller(server, made.json()["key"]) as root:
            ann = root.post("/v1/keys", json={"name": "ann"}).json()
            assert root.delete(f"/v1/keys/{made.json()['id']}").status_code == 409  # nobody could make keys any more
            assert root.delete(f"/v1/keys/{ann['id']}").status_code == 200
            assert root.delete(f"/v1/keys/{made.json()['id']}").json()["active"] is False
            assert root.get("/v1/jobs").status_code == 401
        assert local.get("/v1/jobs").status_code == 200


def test_a_user_may_not_touch_keys(ann: httpx.Client) -> None:
    for answer in (
        ann.get("/v1/keys"),
        ann.post("/v1/keys", json={"name": "eve"}),
        ann.post("/v1/keys/none/rotate"),
        ann.delete("/v1/keys/none"),
    ):
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "forbidden"


def test_a_key_is_shown_once_and_its_successor_ends_it(guarded: ServerProcess, root: httpx.Client) -> None:
    made = root.post("/v1/keys", json={"name": "carol"}).json()
    assert made["role"] == "user" and "key_hash" not in made
    listed = root.get("/v1/keys").json()["data"]
    assert made["key"] not in str(listed) and {"root", "ann", "bob", "carol"} <= {client["name"] for client in listed}
    with caller(guarded, made["key"]) as carol:
        assert carol.get("/v1/jobs").status_code == 200
        second = root.post(f"/v1/keys/{made['id']}/rotate").json()["key"]
        assert carol.get("/v1/jobs").status_code == 401
    with caller(guarded, second) as carol:
        assert carol.get("/v1/jobs").status_code == 200
        assert root.delete(f"/v1/keys/{made['id']}").json()["active"] is False
        assert carol.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"name": ""}, 400),
        ({"name": " "}, 400),
        ({"name": "local"}, 400),
        ({"name": "x" * 101}, 400),
        ({"name": "dave", "role": "king"}, 400),
        ({"name": "dave", "rule": "user"}, 400),
        ({"name": "ann"}, 409),
    ],
)
def test_what_is_no_key_is_refused(root: httpx.Client, asked: dict[str, Any], status: int) -> None:
    assert root.post("/v1/keys", json=asked).status_code == status
    assert root.post("/v1/keys/none/rotate").status_code == 404
