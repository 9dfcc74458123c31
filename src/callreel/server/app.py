"""The ASGI application: routes put together, and one shape for every error."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callreel import __version__
from callreel.errors import CallreelError, InvalidInput, NotFound, TooLarge
from callreel.server.routes import calls, health, jobs
from callreel.server.services import Services, asking

log = logging.getLogger("callreel.server")

FORM_BYTES = 1 << 20  # of a body, beside its file: the other fields and the boundaries


def create_app(services: Services) -> FastAPI:
    app = FastAPI(title="Callreel", version=__version__, summary="Records calls, rewinds them, writes down every word")
    app.state.services = services
    for router in (jobs.router, calls.router, health.router):
        app.include_router(router)
    app.add_middleware(Gate, services=services)
    app.add_exception_handler(CallreelError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)
    return app


class Gate:
    """Ahead of whatever reads a body: its sender is known and its length bounded, or it is refused unread."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._services = app, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._services.settings.max_file_size + FORM_BYTES
        try:
            await asking(self._services, headers)
            if int(headers.get("content-length", "0")) > limit:
                raise TooLarge(limit_bytes=self._services.settings.max_file_size)
        except CallreelError as error:
            await answer(error)(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(TooLarge.status)  # of ours, FastAPI would make "error parsing the body"
            return message

        await self._app(scope, bounded, send)


def answer(error: CallreelError) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse({"error": error.as_dict()}, error.status, headers)


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CallreelError)
    return answer(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [{"field": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()]
    return answer(InvalidInput(hint="/docs describes every field", problems=problems))


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: no such route, no such method, a body it cannot parse."""
    assert isinstance(error, HTTPException)
    refused: CallreelError = NotFound(f"There is nothing at {request.url.path}", hint="/docs lists what there is")
    if error.status_code == TooLarge.status:
        refused = TooLarge()
    elif error.status_code != 404:
        refused = InvalidInput(str(error.detail))
        refused.status = error.status_code
    answered = answer(refused)
    answered.headers.update(error.headers or {})  # Allow, of a method that there is not
    return answered


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer(CallreelError())
