"""What a refusal looks like: our one shape, and OpenAI's under the paths that its clients use."""

from __future__ import annotations

import math
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from callreel.errors import CallreelError, InvalidInput, NotFound, UnreadableMedia
from callreel.server.forms import invalid

OPENAI_PATHS = ("/v1/audio", "/v1/models", "/v1/realtime")
HUNG_UP = 499  # nobody reads it; the log and the metrics do
DEFAULT_RETRY_S = 5


class Refused(HTTPException):
    """A refusal of ours in the middle of a body that FastAPI reads: of any other it makes one of its own."""

    def __init__(self, error: CallreelError) -> None:
        super().__init__(error.status)
        self.error = error


def answer(error: CallreelError, path: str) -> JSONResponse:
    """A refusal as the API answers it at `path`."""
    openai = is_openai(path)
    body = openai_body(error) if openai else error.as_dict()
    status = 400 if openai and isinstance(error, UnreadableMedia) else error.status  # OpenAI has no 422
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (429, 503):
        headers["Retry-After"] = str(math.ceil(error.detail.get("retry_after_s", DEFAULT_RETRY_S)))
    return JSONResponse({"error": body}, status, headers)


async def known(request: Request, error: Exception) -> Response:
    assert isinstance(error, CallreelError)
    return answer(error, request.url.path)


async def not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The first part of a location is where the field stands: query, path, header, body.
    errors = [{**e, "loc": e["loc"][1:] or e["loc"]} for e in error.errors()]
    return answer(invalid(errors), request.url.path)


async def http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such route, no such method, a body it cannot parse."""
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return answer(error.error, request.url.path)
    refused: CallreelError = NotFound(f"There is nothing at {request.url.path}", hint="/docs lists what there is")
    if error.status_code != 404:
        refused = InvalidInput(str(error.detail), hint="/docs lists what there is")
        refused.status = error.status_code
    answered = answer(refused, request.url.path)
    answered.headers.update(error.headers or {})  # Allow, of a method that there is not
    return answered


async def hung_up(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClientDisconnect)
    return Response(status_code=HUNG_UP)


def is_openai(path: str) -> bool:
    """Whether OpenAI's shape rules at `path`."""
    return any(path == root or path.startswith(f"{root}/") for root in OPENAI_PATHS)


def openai_body(error: CallreelError) -> dict[str, Any]:
    """As OpenAI's SDKs read it; `param` is the field that was wrong."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    problems = error.detail.get("problems")
    param = problems[0]["field"].partition(".")[0] if problems else error.detail.get("field")
    if isinstance(error, UnreadableMedia):
        param = "file"
    code = "invalid_api_key" if error.status == 401 else error.code
    message = (
        f"{error}. {error.hint}" if error.hint and str(error)[-1] not in ".!?" else f"{error} {error.hint}".strip()
    )
    return {"message": message, "type": kind, "param": param, "code": code}
