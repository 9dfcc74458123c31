"""What a transcription has done so far, in a folder that outlives its attempts: the next one goes on from there."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from callreel.engines.base import Decoded
from callreel.errors import StorageUnavailable, disk_fault
from callreel.offline.chunk import Chunk

log = logging.getLogger("callreel.offline")

FILE, LOCK = "checkpoint", "lock"
HEAD = struct.Struct("<II")  # bytes of the record, its CRC-32
WAIT_S, POLL_S = 10.0, 0.05


class Request(msgspec.Struct, tag="request"):
    """The first record: what was asked for, of which file and which engine."""

    digest: str


class Plan(msgspec.Struct, tag="plan"):
    """The second: where each track is cut, how many windows a batch holds, and how many batches ran at once.

    A later attempt keeps to it, whatever its own engine would take: the batch a window is in can change its text.
    """

    tracks: list[list[Chunk]]
    batch_size: int
    parallel: int


class Done(msgspec.Struct, tag="done"):
    """A batch: what its windows say. `probe`: decoded to hear the language."""

    decoded: dict[int, Decoded]
    probe: bool = False


Record: TypeAlias = Request | Plan | Done


@dataclass(slots=True)
class Past:
    """What earlier attempts at the same request have done."""

    plan: Plan | None = None
    probed: dict[int, Decoded] = field(default_factory=dict)
    done: dict[int, Decoded] = field(default_factory=dict)

    def take(self, record: Plan | Done) -> None:
        if isinstance(record, Plan):
            self.plan = record
        else:
            (self.probed if record.probe else self.done).update(record.decoded)


class Checkpoint:
    """An append-only file of records, each on the disk before `add` returns. Its end may be torn: it is cut off.

    A disk that is full costs the checkpoint, not the transcription.
    """

    def __init__(self, file: IO[bytes] | None = None) -> None:
        """`kept`: what is done here outlives this attempt. Without a file nothing does."""
        self._file, self.kept = file, file is not None

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, *, wait_s: float = WAIT_S) -> Iterator[Checkpoint]:
        """The checkpoint in `folder`, which is this attempt's alone meanwhile: an earlier one may still be dying.

        Raises StorageUnavailable if that takes longer than `wait_s`, or if the folder cannot be written.
        """
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _lock(stack.enter_context((folder / LOCK).open("wb")), time.monotonic() + wait_s)
                file = stack.enter_context((folder / FILE).open("a+b", buffering=0))
            except OSError as error:
                raise disk_fault(error, f"The checkpoint cannot be written: {error.strerror}") from error
            yield cls(file)

    def begin(self, digest: str) -> Past:
        """What was done for this request before; the records of any other are dropped."""
        past = Past()
        if self._file is None:
            return past
        self._file.seek(0)
        whole = 0
        for end, record in _records(self._file):
            if whole == 0:
                if not isinstance(record, Request) or record.digest != digest:
                    break
            elif isinstance(record, Request):
                break
            else:
                past.take(record)
            whole = end
        self._file.truncate(whole)
        if whole == 0:
            self.add(Request(digest))
        return past

    def add(self, record: Record) -> None:
        if self._file is None:
            return
        body = msgspec.msgpack.encode(record)
        try:
            data = memoryview(HEAD.pack(len(body), zlib.crc32(body)) + body)
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            log.error("no more checkpoints, a later attempt repeats the rest: %s", error)
            self._file = None


def _records(file: IO[bytes]) -> Iterator[tuple[int, Record]]:
    """(where it ends, record) of all whole records up to the first that is not."""
    at, size = 0, os.fstat(file.fileno()).st_size
    while len(head := file.read(HEAD.size)) == HEAD.size:
        length, crc = HEAD.unpack(head)
        body = file.read(min(length, size))
        if len(body) < length or zlib.crc32(body) != crc:
            return
        try:
            record: Record = msgspec.msgpack.decode(body, type=Record)
        except msgspec.DecodeError:
            return  # of another version
        at += HEAD.size + length
        yield at, record


def _lock(file: IO[bytes], deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StorageUnavailable("An earlier attempt at this job is still running") from error
            time.sleep(POLL_S)
