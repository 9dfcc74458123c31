"""Ahead of whatever reads a body: its sender is known and its length bounded, or it is refused unread."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callreel.errors import CallreelError, TooLarge
from callreel.server.answers import Refused, answer
from callreel.server.services import Services, asking
from callreel.server.uploads import FIELDS_BYTES

FORM_BYTES = FIELDS_BYTES + (1 << 20)  # of a form, beside its file: the other fields and the boundaries
TEXT_BYTES = 1 << 20  # of a body that is no form
READING = ("GET", "HEAD", "OPTIONS")
LINGER_S = 2.0


class Gate:
    """Refuses bodies that are too long or nobody's.

    Who is refused in the middle of a body gets the answer at once; what it still sends is thrown away for a while,
    because a connection that is closed over unread bytes is reset, and the answer with it.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._services = app, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(receive, send, headers)
        try:
            await asking(self._services, headers, scope["path"])
            if headers.get("content-type", "").lower().startswith("multipart/form-data"):
                most = self._services.settings.max_file_size
                body.bound(most + FORM_BYTES, TooLarge(limit_bytes=most))  # the limit that can be set, of the file
            else:
                said = "This body is longer than is taken of one that is no upload."
                hint = "Send files as multipart/form-data"
                body.bound(TEXT_BYTES, TooLarge(said, hint=hint, limit_bytes=TEXT_BYTES))
        except CallreelError as error:
            await answer(error, scope["path"])(scope, body.receive, body.send)
            return
        await self._app(scope, body.receive, body.send)


class _Body:
    """A request's body as it is read, and the answer to it."""

    def __init__(self, receive: Receive, send: Send, headers: Headers) -> None:
        self._receive, self._send = receive, send
        self._length = int(headers.get("content-length", "0"))  # of digits, or the server had not let it in
        self._whole = self._length == 0 and "transfer-encoding" not in headers
        self._received = 0
        self._limit: int | None = None
        self._too_large = TooLarge()
        self._closing = False

    def bound(self, limit: int, too_large: TooLarge) -> None:
        """Raise `too_large` for a body that says that it is longer than `limit` bytes, or once it turns out to be."""
        self._limit, self._too_large = limit, too_large
        if self._length > limit:
            raise too_large

    async def receive(self) -> Message:
        message = await self._receive()
        self._whole = self._whole or not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        if self._limit is not None and self._received > self._limit:
            raise Refused(self._too_large)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._whole and message["status"] >= 400:
            self._closing = True
            MutableHeaders(scope=message)["Connection"] = "close"
        if self._closing and message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._whole:
                    self._whole = not (await self._receive()).get("more_body", False)
