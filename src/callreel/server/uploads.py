"""Bodies of requests: files go to the disk as they come, hashed on the way, and are never whole in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

import msgspec
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from callreel.errors import InvalidInput, OutOfSpace, TooLarge, disk_fault
from callreel.server.forms import HINT, Form, Upload, problem
from callreel.server.services import Services

PIECE_BYTES = 1 << 20  # handed to the disk at once; two of them wait in memory at most
MAX_PARTS = 128  # of a form
FIELDS_BYTES = 4 << 20  # of all text fields together: voices to compare with come as data URLs
HEADER_BYTES = 8192  # of a part
TITLE_LENGTH = 200
RESERVE_BYTES = 64 << 20  # of the disk stay free, for the database


@asynccontextmanager
async def received(services: Services, request: Request) -> AsyncIterator[Form]:
    """The whole body: a multipart form, or fields alone as a URL-encoded form or a JSON object.

    Files that are not moved away while the context lasts are removed with it, and so is what came of a body without
    an end. Raises InvalidInput, TooLarge, OutOfSpace or StorageUnavailable, and starlette's ClientDisconnect.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        length = int(request.headers.get("content-length", "0"))
        if (free := services.folder.free_bytes()) < length + RESERVE_BYTES:
            raise OutOfSpace(free_bytes=free, needed_bytes=length + RESERVE_BYTES)
        body = _Multipart(options.get(b"boundary", b""), services.folder.tmp, services.settings.max_file_size)
        try:
            async for chunk in request.stream():
                await body.feed(chunk)
            yield body.end()
        except OSError as error:
            raise disk_fault(error) from error
        finally:
            await body.discard()
    elif kind == b"application/x-www-form-urlencoded":
        try:
            text = (await request.body()).decode()
            yield Form([*parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARTS)])
        except ValueError as error:
            raise InvalidInput(f"The form cannot be read: {error}", hint=HINT) from None
    elif kind == b"application/json":
        yield Form([*json_object(await request.body()).items()])
    else:
        said = f"A body of type {kind.decode('latin-1')!r} is not understood" if kind else "There is no body"
        raise InvalidInput(said, hint="Send multipart/form-data, as `curl -F file=@call.wav` does")


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"The body is no JSON object: {error}", hint=HINT) from None


def title_of(name: bytes) -> str:
    """What a client calls a file, as something to show: the last part of it, printable, at most 200 characters."""
    last = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    shown = "".join(c for c in last if unicodedata.category(c)[0] != "C")
    return " ".join(shown.split())[:TITLE_LENGTH]


class _Multipart:
    """A multipart form as it comes, chunk by chunk."""

    def __init__(self, boundary: bytes, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._form = Form()
        self._ended = False
        self._parts = 0
        self._fields_bytes = 0
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._name, self._text = "", bytearray()
        self._spool: _Spool | None = None  # of the part under way, if that is a file
        self._spools: list[_Spool] = []
        callbacks: Any = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        with _named():
            if not boundary:
                raise FormParserError("its boundary is missing")
            self._parser = MultipartParser(boundary, callbacks, max_header_size=HEADER_BYTES)

    async def feed(self, chunk: bytes) -> None:
        """Take in what came; slow only when the disk is."""
        with _named():
            self._parser.write(chunk)
        for spool in self._spools:
            if spool.ended and spool.upload is None:
                self._form.files.append(await spool.finish())
            elif spool.waiting >= PIECE_BYTES:
                await spool.flush()

    def end(self) -> Form:
        if not self._ended:
            raise InvalidInput("The form ends in its middle", hint="Its closing boundary is missing; send it again")
        return self._form

    async def discard(self) -> None:
        for spool in self._spools:
            await spool.discard()

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidInput(f"The form has more than {MAX_PARTS} parts", hint=HINT)
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if not (name := options.get(b"name")):
            raise FormParserError("a part has no name")
        self._name, self._text, self._spool = _text(name, "a part"), bytearray(), None
        if (file := options.get(b"filename")) is not None:
            self._spool = _Spool(self._folder, self._name, title_of(file), named=bool(file))
            self._spools.append(self._spool)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._spool is not None:
            self._spool.add(memoryview(data)[start:end])
            if self._spool.size > self._limit_bytes:
                raise TooLarge(limit_bytes=self._limit_bytes)
        else:
            self._fields_bytes += end - start
            if self._fields_bytes > FIELDS_BYTES:
                raise TooLarge("The fields of the form are too long", hint=HINT, limit_bytes=FIELDS_BYTES)
            self._text += data[start:end]

    def _on_part_end(self) -> None:
        if self._spool is None:
            self._form.fields.append((self._name, _text(bytes(self._text), self._name)))
        elif self._spool.size:
            self._spool.ended = True
        elif self._spool.named:
            raise InvalidInput(
                "The file is empty", hint="Check it before sending", **problem(self._name, "It is empty")
            )

    def _on_end(self) -> None:
        self._ended = True


class _Spool:
    """One file on its way to the disk: `add` is instant, `flush` waits only for the piece before."""

    def __init__(self, folder: Path, name: str, title: str, *, named: bool) -> None:
        self.named = named  # an input of a page that nobody chose a file for has no name
        self.size = 0
        self.ended = False
        self.upload: Upload | None = None
        self._folder, self._name, self._title = folder, name, title
        self._waiting = bytearray()  # not yet handed to the disk
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._writing: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, data: memoryview) -> None:
        self._waiting += data
        self.size += len(data)

    async def flush(self) -> None:
        await self._written()
        piece, self._waiting = self._waiting, bytearray()
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, piece, self.ended))

    async def finish(self) -> Upload:
        """Wait until all of it is on the disk."""
        await self.flush()
        await self._written()
        assert self._path is not None
        self.upload = Upload(self._name, self._path, self._title, self.size, self._hash.hexdigest())
        return self.upload

    async def discard(self) -> None:
        """Remove what was not moved away."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)  # a thread cannot be cancelled: `discard` waits for it

    def _write(self, piece: bytearray, last: bool) -> None:
        if self._file is None:
            fd, path = tempfile.mkstemp(prefix="upload-", dir=self._folder)
            self._file, self._path = os.fdopen(fd, "wb", buffering=0), Path(path)
        self._hash.update(piece)
        rest = memoryview(piece)
        while rest:  # a disk that becomes full takes a part
            rest = rest[self._file.write(rest) :]
        if last:
            os.fsync(self._file.fileno())
            self._file.close()


def _text(raw: bytes, what: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidInput(f"{what} is no UTF-8 text", hint=HINT, **problem(what, "It is no UTF-8 text"))
    return text


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise InvalidInput(
            f"The form cannot be read: {error}", hint="Send multipart/form-data as RFC 7578 says"
        ) from error
