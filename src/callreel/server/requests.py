"""Around every request: its id, what it adds to the log and the metrics, and an answer if we fail."""

from __future__ import annotations

import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callreel import clock, metrics
from callreel.errors import CallreelError
from callreel.logs import request_id
from callreel.server.answers import answer

log = logging.getLogger("callreel.requests")

HEADER = "X-Request-ID"
SANE = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NO_ROUTE = "none"  # so that paths that somebody made up are one time series, not one each


class Requests:
    """Outermost: gives the request its id (the client's own, if it is sane), counts it and takes its time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(HEADER, "")
        id = sent if SANE.fullmatch(sent) else clock.new_id()
        token = request_id.set(id)
        began = clock.monotonic()
        status: int | None = None

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = id
                headers["X-Content-Type-Options"] = "nosniff"  # a transcript in plain text is never taken for a page
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if status is not None:
                raise  # half an answer is out: the server closes the connection over it
            await answer(CallreelError(), scope["path"])(scope, receive, with_id)
        finally:
            took_s = clock.monotonic() - began
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            metrics.requests.labels(method, route, str(status)).inc()
            metrics.request_duration.labels(method, route).observe(took_s)
            log.debug("%s %s %s in %.1f ms", scope["method"], scope["path"], status, took_s * 1000)
            request_id.reset(token)
