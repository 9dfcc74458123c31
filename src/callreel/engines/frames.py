"""What goes over an engine's Unix socket: length-prefixed msgpack frames, one answer a request, in order."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np

from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.errors import (
    CallreelError,
    EngineCrashed,
    EngineRefused,
    EngineUnavailable,
    InvalidInput,
    ModelMissing,
    OutOfSpace,
)

SENT = (InvalidInput, EngineUnavailable, ModelMissing, EngineRefused, EngineCrashed, OutOfSpace)  # as what they are
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
    """What became of a call: `cpu_s` is what it cost the child, `peak_rss_bytes` the most the child ever had in RAM."""

    decoded: list[Decoded] = []
    error: dict[str, Any] | None = None
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0


def decoded(answer: Answer) -> list[Decoded]:
    """What an answer says, or raise the error that it carries."""
    if answer.error is not None:
        raise error_from(answer.error)
    return answer.decoded


def error_from(body: dict[str, Any]) -> CallreelError:
    """The error a child reported, as the class it had there; any other code as EngineUnavailable that stays so."""
    kinds = {kind.code: kind for kind in SENT}
    error = kinds.get(body["code"], EngineUnavailable)(body["message"], hint=body["hint"], **body["detail"])
    if body["code"] not in kinds:
        error.code, error.transient = body["code"], False
    return error


def pack(message: msgspec.Struct) -> bytes:
    """The frame of `message`; raises InvalidInput where it is longer than the other end would take."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise InvalidInput(
            f"A call of {len(body)} bytes to an engine: at most {MAX_FRAME_BYTES}, so give fewer windows"
        )
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


def read(file: BinaryIO) -> bytes:
    """One frame's body from a pipe; raises ConnectionError when it was closed before."""
    header = file.read(LENGTH.size)
    body = file.read(_size(header)) if len(header) == LENGTH.size else b""
    if len(body) < (_size(header) if header else 1):
        raise ConnectionResetError("the pipe was closed")
    return body


def is_closed(connection: socket.socket) -> bool:
    """True if the other end of a connection is gone; what it sent before that may still be there to be read."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def receive_async(reader: asyncio.StreamReader) -> bytes:
    """One frame's body; raises ConnectionError or asyncio.IncompleteReadError when the peer is gone."""
    return await reader.readexactly(_size(await reader.readexactly(LENGTH.size)))
