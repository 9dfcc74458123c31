"""The ASGI application: routes put together, and what stands around all of them."""

from __future__ import annotations

from functools import partial

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.requests import ClientDisconnect

from callreel import __version__
from callreel.errors import CallreelError
from callreel.server import answers
from callreel.server.described import describe
from callreel.server.gate import Gate
from callreel.server.queries import known_query
from callreel.server.requests import Requests
from callreel.server.routes import (
    audio,
    calls,
    docs,
    events,
    helpline,
    jobs,
    keys,
    models,
    search,
    segments,
    system,
    transcripts,
    webhooks,
)
from callreel.server.services import Services

GZIP_BYTES = 1024  # smaller answers go as they are
GZIP_LEVEL = 5
GZIP_ON_LOOP_BYTES = 16 << 10  # longer ones are compressed in a thread: they take over half a millisecond
COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/vnd.*")


def create_app(services: Services) -> FastAPI:
    app = FastAPI(
        title="Callreel",
        version=__version__,
        summary="Records calls, rewinds them, writes down every word",
        dependencies=[Depends(known_query)],
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    for resource in (jobs, calls, transcripts, segments, events, search, audio, models, keys, webhooks, system):
        app.include_router(resource.router)
    app.include_router(helpline.router)
    app.include_router(docs.router)
    app.add_exception_handler(CallreelError, answers.known)
    app.add_exception_handler(RequestValidationError, answers.not_valid)
    app.add_exception_handler(HTTPException, answers.http)
    app.add_exception_handler(ClientDisconnect, answers.hung_up)
    app.add_middleware(
        GZipMiddleware,
        minimum_size=GZIP_BYTES,
        compresslevel=GZIP_LEVEL,
        thread_minimum_size=GZIP_ON_LOOP_BYTES,
        exclude_content_types=COMPRESSED,
    )
    app.add_middleware(Gate, services=services)
    app.add_middleware(Requests)  # the last one added is the outermost
    return app
