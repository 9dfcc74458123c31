"""Parameters of a URL that a route does not know."""

from __future__ import annotations

import httpx
import pytest


@pytest.mark.parametrize(
    ("path", "name", "nearest"),
    [
        ("/v1/jobs?bogus=1", "bogus", ""),
        ("/v1/jobs?stat=failed", "stat", "'state'"),
        ("/v1/calls?labels=a%3Db&limit=1", "labels", "'label'"),
        ("/v1/calls?form=2026-01-01", "form", "'from'"),
        ("/v1/search?q=a&call=1", "call", "'call_id'"),
        ("/v1/calls/none/transcript?min_cue=1", "min_cue", "'min_cue_s'"),
        ("/v1/jobs/none?x=", "x", ""),
    ],
)
def test_one_that_there_is_not_is_refused_and_the_nearest_named(
    api: httpx.Client, path: str, name: str, nearest: str
) -> None:
    answer = api.get(path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["detail"]["problems"][0]["field"]) == (400, "invalid_input", name)
    assert nearest in error["message"]


@pytest.mark.parametrize("path", ["/v1/models?limit=3", "/health?at=1", "/audio/queue/status?verbose=1"])
def test_other_systems_clients_may_send_theirs(api: httpx.Client, path: str) -> None:
    assert api.get(path).status_code == 200


def test_what_a_form_holds_is_not_taken_from_the_url(api: httpx.Client) -> None:
    answer = api.post("/v1/jobs?language=en", files={"file": ("a.wav", b"x")})
    assert answer.status_code == 400 and "language" in answer.json()["error"]["message"]
