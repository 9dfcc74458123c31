"""What goes over an engine's Unix socket: length-prefixed msgpack frames, one answer a request, in order."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.errors import CallreelError, EngineUnavailable

LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 64 * 1024 * 1024  # 32 windows of 30 s are 31 MB


class Hello(msgspec.Struct):
    """What the child says first on every connection, once its model is loaded or has failed to load."""

    name: str = ""
    model: str = ""
    capabilities: Capabilities = Capabilities()
    error: dict[str, Any] | None = None


class RawWindow(msgspec.Struct):
    pcm: bytes
    prompt: str


class Request(msgspec.Struct):
    windows: list[RawWindow]
    options: DecodeOptions

    @classmethod
    def of(cls, windows: Sequence[Window], options: DecodeOptions) -> Request:
        return cls([RawWindow(w.pcm.tobytes(), w.prompt) for w in windows], options)

    def as_windows(self) -> list[Window]:
        return [Window(np.frombuffer(w.pcm, np.int16), w.prompt) for w in self.windows]


class Answer(msgspec.Struct):
    decoded: list[Decoded] = []
    error: dict[str, Any] | None = None


def error_from(body: dict[str, Any]) -> CallreelError:
    """The error a child reported, as one of the EngineUnavailable family with the same code."""
    error = EngineUnavailable(body["message"], hint=body["hint"], **body["detail"])
    error.code = body["code"]
    error.transient = bool(body["detail"].get("transient", False))
    return error


def pack(message: msgspec.Struct) -> bytes:
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def _size(header: bytes) -> int:
    (size,) = LENGTH.unpack(header)
    if size > MAX_FRAME_BYTES:
        raise EngineUnavailable(f"A frame of {size} bytes on an engine's socket: this is not our protocol")
    return int(size)


def receive(connection: socket.socket) -> bytes:
    """One frame's body; raises ConnectionError when the peer is gone."""
    return _exactly(connection, _size(_exactly(connection, LENGTH.size)))


def _exactly(connection: socket.socket, size: int) -> bytes:
    body = bytearray(size)
    view = memoryview(body)
    while view:
        n = connection.recv_into(view)
        if n == 0:
            raise ConnectionResetError("the engine's socket was closed")
        view = view[n:]
    return bytes(body)


async def receive_async(reader: asyncio.StreamReader) -> bytes:
    """One frame's body; raises ConnectionError or asyncio.IncompleteReadError when the peer is gone."""
    return await reader.readexactly(_size(await reader.readexactly(LENGTH.size)))
