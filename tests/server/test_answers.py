"""The two shapes of a refusal, and what else it tells its reader."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callreel.errors import CallreelError, InvalidInput, OutOfSpace, QueueFull, Unauthorized
from callreel.server.answers import answer


def body(error: CallreelError, path: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(bytes(answer(error, path).body))["error"]
    return parsed


def test_when_to_come_back_is_a_whole_number_of_seconds() -> None:
    assert answer(QueueFull(retry_after_s=12.1), "/v1/jobs").headers["retry-after"] == "13"
    assert int(answer(QueueFull(), "/v1/jobs").headers["retry-after"]) > 0
    assert "retry-after" not in answer(OutOfSpace(), "/v1/jobs").headers


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (InvalidInput("no", field="language"), "invalid_request_error", "invalid_input", "language"),
        (
            InvalidInput("no", problems=[{"field": "file", "problem": "no"}]),
            "invalid_request_error",
            "invalid_input",
            "file",
        ),
        (Unauthorized(), "invalid_request_error", "invalid_api_key", None),
        (QueueFull(), "rate_limit_error", "queue_full", None),
        (CallreelError(), "server_error", "internal", None),
    ],
)
def test_openais_shape(error: CallreelError, kind: str, code: str, param: str | None) -> None:
    told = body(error, "/v1/audio/transcriptions")
    assert (told["type"], told["code"], told["param"]) == (kind, code, param)


def test_openais_message_says_the_hint_too() -> None:
    assert body(InvalidInput("No such model", hint="See GET /v1/models"), "/v1/models/x")["message"] == (
        "No such model. See GET /v1/models"
    )


def test_everywhere_else_it_is_ours() -> None:
    for path in ("/v1/jobs", "/v1/audiobooks", "/audio/process"):
        assert set(body(InvalidInput("no"), path)) == {"code", "message", "hint", "detail"}
