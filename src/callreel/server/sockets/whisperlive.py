"""WhisperLive's protocol on a port of its own: one connection, one live stream."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from callreel import clock
from callreel.errors import CallreelError, InvalidInput, Unauthorized
from callreel.live.service import OpenStream
from callreel.live.session import LiveOptions
from callreel.server.services import Services, bearer, is_forwarded
from callreel.text import Segment
from callreel.wire import whisperlive as wire

log = logging.getLogger("callreel.live")

TRACK = "main"
BEARER = Subprotocol("bearer")
OPTIONS_WITHIN_S = 10.0  # a connection that says nothing gives its place back
FINISH_WITHIN_S = 8.0  # when the server stops; what is not decoded by then is taken up at the next start
QUEUED_FRAMES = 16  # read ahead of the stream; beyond it TCP holds the client back


@asynccontextmanager
async def listen(services: Services, host: str, port: int) -> AsyncIterator[Server]:
    """Serve until the context ends; then connections are closed, and their streams finished as far as time allows.

    Raises InvalidInput for an address that cannot be listened on.
    """
    adapter = Adapter(services)
    try:
        server = await serve(
            adapter.talk,
            host,
            port,
            process_request=adapter.admit,
            select_subprotocol=lambda _, offered: BEARER if BEARER in offered else None,
            max_size=wire.MAX_FRAME_BYTES,
            max_queue=QUEUED_FRAMES,
            compression=None,  # PCM does not compress, and a window of zlib costs memory for every stream
            server_header=None,
        )
    except OSError as error:
        raise InvalidInput(
            f"Cannot listen on {host}:{port}: {error.strerror}", hint="Choose another with --host or --live-port"
        ) from error
    try:
        yield server
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_WITHIN_S):
                await server.wait_closed()


class Adapter:
    """What all connections share: who may in."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The client behind the key in header, query or subprotocols; HTTP 401 without one where it is needed."""
        try:
            host, origin = (next(iter(request.headers.get_all(name)), "") for name in ("Host", "Origin"))
            client_id = await self._services.client_of(
                key_of(request), host=host, origin=origin, forwarded=is_forwarded(request.headers)
            )
            connection.client_id = client_id  # type: ignore[attr-defined]
        except Unauthorized as error:
            return connection.respond(HTTPStatus.UNAUTHORIZED, f"{error} {error.hint}\n")
        return None

    async def talk(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await Conversation(self._services, connection).run()


class Conversation:
    """One connection: frames in to the stream, segments out to the client."""

    def __init__(self, services: Services, connection: ServerConnection) -> None:
        self._services, self._connection = services, connection
        self._protocol = wire.ServerProtocol()
        self._uid = ""
        self._waiting: deque[list[Segment]] = deque()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        live = self._services.live
        try:
            options = await self._options()
            opened = await live.open(
                client_id=self._connection.client_id,  # type: ignore[attr-defined]
                protocol="whisperlive",
                options=live_options(options, live.defaults),
                external_id=self._uid,
                track=options.track or TRACK,
                on_segments=self._take,
            )
        except CallreelError as error:
            await self._refuse(error)
            return
        talker = asyncio.create_task(self._talk(options, opened))
        try:
            await self._say_ready(opened)
            await self._listen(opened)
        except InvalidInput as error:
            await self._refuse(error)
        except ConnectionClosed:
            pass  # hung up: what was accepted is decoded and stored all the same
        finally:
            # Shielded: a client that is gone, or a server that stops, does not take the rest of the words away.
            try:
                await asyncio.shield(live.finish(opened))
            finally:
                self._waiting.append([])
                self._changed.set()
                with suppress(ConnectionClosed):
                    await talker

    async def _options(self) -> wire.Options:
        try:
            async with asyncio.timeout(OPTIONS_WITHIN_S):
                frame = await self._connection.recv()
        except TimeoutError:
            raise InvalidInput(f"No options came within {OPTIONS_WITHIN_S:.0f} s") from None
        try:
            (options,) = self._protocol.receive(frame)
        finally:
            self._uid = self._protocol.uid or clock.new_id()
        assert isinstance(options, wire.Options)
        return options

    async def _say_ready(self, opened: OpenStream) -> None:
        engine = self._services.live.engine
        for text in engine.warnings:
            await self._connection.send(wire.warning(self._uid, text))
        await self._connection.send(wire.ready(self._uid, {"call_id": opened.row.call_id}))

    async def _listen(self, opened: OpenStream) -> None:
        """Feed the stream until the client ends it. Without audio for a while, what was said is completed."""
        loop = asyncio.get_running_loop()
        stalled_at: float | None = None  # unless audio comes before; other frames do not count
        while True:
            try:
                async with asyncio.timeout_at(stalled_at):
                    frame = await self._connection.recv()
            except TimeoutError:
                opened.stream.complete()
                stalled_at = None
                continue
            for event in self._protocol.receive(frame):
                if isinstance(event, wire.EndOfAudio):
                    return
                if isinstance(event, wire.Audio):
                    await opened.stream.feed(event.pcm)
                    stalled_at = loop.time() + self._services.settings.live.stall_s

    def _take(self, segments: list[Segment]) -> None:
        self._waiting.append(segments)
        self._changed.set()

    async def _talk(self, options: wire.Options, opened: OpenStream) -> None:
        """Send each change of the transcript; a client that is behind gets no partial that is out of date."""
        view = wire.TranscriptView(options.send_last_n_segments)
        told_language = False
        while True:
            await self._changed.wait()
            self._changed.clear()
            ended = False
            while self._waiting:
                segments = self._waiting.popleft()
                ended = ended or not segments
                shown = view.update(segments)
                session = opened.stream.session
                if session.language is not None and not told_language:
                    told_language = True
                    await self._connection.send(
                        wire.language(self._uid, session.language, session.language_probability)
                    )
                stale = bool(self._waiting) and not any(segment.completed for segment in segments)
                if shown and segments and not stale:
                    await self._connection.send(wire.segments(self._uid, shown, options.word_timestamps))
            if ended:
                return

    async def _refuse(self, error: CallreelError) -> None:
        await self._connection.send(wire.error(self._uid, f"{error} {error.hint}".strip()))


def live_options(asked: wire.Options, defaults: LiveOptions) -> LiveOptions:
    """What the client chose, over what the settings say."""
    return replace(
        defaults,
        language=asked.language,
        task=asked.task,
        prompt=asked.initial_prompt or "",
        hotwords=asked.hotwords or "",
    )


def key_of(request: Request) -> str | None:
    """An API key, wherever WhisperLive's clients put it: header, `?token=`, or subprotocols ["bearer", KEY]."""
    if key := bearer(", ".join(request.headers.get_all("Authorization"))):
        return key
    if token := parse_qs(urlsplit(request.path).query).get("token"):
        return token[0]
    offered = [part.strip() for part in ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).split(",")]
    return offered[1] if len(offered) == 2 and offered[0] == BEARER else None
