"""The ASGI application: routes put together, and one shape for every error."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from callreel import __version__
from callreel.errors import CallreelError, InvalidInput, NotFound
from callreel.server.routes import calls, health, jobs
from callreel.server.services import Services

log = logging.getLogger("callreel.server")


def create_app(services: Services) -> FastAPI:
    app = FastAPI(title="Callreel", version=__version__, summary="Records calls, rewinds them, writes down every word")
    app.state.services = services
    for router in (jobs.router, calls.router, health.router):
        app.include_router(router)
    app.add_exception_handler(CallreelError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)
    return app


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
    if error.status_code != 404:
        refused = InvalidInput(str(error.detail))
        refused.status = error.status_code
    return answer(refused)


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer(CallreelError())
