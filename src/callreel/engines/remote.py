"""An engine in another process, seen from here: the same protocol, over its Unix socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from callreel.engines import frames
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.errors import CallreelError, EngineCrashed, EngineUnavailable

MAX_CRASHES = 3  # times the child may die under the same windows before they are given up
CONNECT_TIMEOUT_S = 120.0  # loading a large model from a cold disk
PAUSE_S = 0.2


class RemoteEngine:
    """Blocking client, for job children. Calls from several threads run side by side, each on its own connection;
    connections are kept, and made anew when the engine child was started anew.

    `cpu_s` is what all its calls have cost the child, `peak_rss_bytes` the most the child was seen to have in RAM.
    """

    def __init__(self, path: Path, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self.cpu_s = 0.0
        self.peak_rss_bytes = 0
        connection, self._hello = self._connect()
        self._idle.append(connection)

    @property
    def name(self) -> str:
        return self._hello.name

    @property
    def model(self) -> str:
        return self._hello.model

    @property
    def capabilities(self) -> Capabilities:
        return self._hello.capabilities

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        request = frames.pack(frames.Request.of(windows, options))
        for _ in range(MAX_CRASHES):
            connection = self._kept() or self._connect()[0]
            try:
                connection.sendall(request)
                body = frames.receive(connection)
            except OSError:
                connection.close()
                self.close()  # the child has died, so the kept connections are dead too
                continue
            except BaseException:
                connection.close()  # interrupted half way: the next answer on it would be this one's
                raise
            answer = msgspec.msgpack.decode(body, type=frames.Answer)
            with self._lock:
                self._idle.append(connection)
                self.cpu_s += answer.cpu_s
                self.peak_rss_bytes = max(self.peak_rss_bytes, answer.peak_rss_bytes)
            return frames.decoded(answer)
        raise EngineCrashed()

    def close(self) -> None:
        """Close what is idle; a call under way closes its own when it fails."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _kept(self) -> socket.socket | None:
        """An idle connection to a child that lives. One that died between calls is no fault of the next."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if not frames.is_closed(connection):
                return connection
            connection.close()

    def _connect(self) -> tuple[socket.socket, frames.Hello]:
        deadline = time.monotonic() + self._timeout_s
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                connection.connect(str(self._path))
                hello = _hello(frames.receive(connection))
                connection.settimeout(None)
                return connection, hello
            except OSError as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise EngineUnavailable(f"No answer from the engine within {self._timeout_s:.0f} s") from error
                time.sleep(PAUSE_S)
            except BaseException:
                connection.close()
                raise


class AsyncRemoteEngine:
    """The same for asyncio: as many connections as calls may run at once, kept and made anew when they break."""

    def __init__(self, path: Path, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def hello(self) -> frames.Hello:
        """Wait for the child and its model. Raises EngineUnavailable (or what loading the model raised)."""
        reader, writer, hello = await self._connect()
        self._idle.append((reader, writer))
        return hello

    async def is_up(self, *, within_s: float) -> bool:
        """Whether the child runs, its model in memory."""
        try:
            async with asyncio.timeout(within_s):
                _, writer, _ = await self._connect()
        except (CallreelError, TimeoutError):
            return False
        writer.close()
        return True

    async def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        request = frames.pack(frames.Request.of(windows, options))
        for _ in range(MAX_CRASHES):
            reader, writer = self._kept() or (await self._connect())[:2]
            try:
                writer.write(request)
                await writer.drain()
                body = await frames.receive_async(reader)
            except (OSError, asyncio.IncompleteReadError):
                writer.close()
                self.close()  # the child has died, so the kept connections are dead too
                continue
            except BaseException:
                writer.close()  # cancelled half way: the next answer on it would be this one's
                raise
            self._idle.append((reader, writer))
            return frames.decoded(msgspec.msgpack.decode(body, type=frames.Answer))
        raise EngineCrashed()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that is idle and, as far as can be seen, not broken."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, frames.Hello]:
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await self._connect_once()
                    except (OSError, asyncio.IncompleteReadError):
                        await asyncio.sleep(PAUSE_S)
        except TimeoutError as error:
            raise EngineUnavailable(f"No answer from the engine within {self._timeout_s:.0f} s") from error

    async def _connect_once(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, frames.Hello]:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            return reader, writer, _hello(await frames.receive_async(reader))
        except BaseException:
            writer.close()
            raise


def _hello(body: bytes) -> frames.Hello:
    hello = msgspec.msgpack.decode(body, type=frames.Hello)
    if hello.error is not None:
        raise frames.error_from(hello.error)
    return hello
