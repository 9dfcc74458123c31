"""Chained Ogg: files put one behind another, each with a codec, a rate and channels of its own (RFC 3533, section 4).

FFmpeg reads such a file with the decoder of its first link, so the others come out wrong or not at all.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

CAPTURE = b"OggS"
HEADER_BYTES = 27
FIRST_PAGE, LAST_PAGE = 0x02, 0x04  # bits of a page's header type: of its logical stream
LONGEST_PAGE = HEADER_BYTES + 255 + 255 * 255


@dataclass(frozen=True, slots=True)
class Links:
    """Where each link of a chain begins and ends, in bytes; `whole` is False if the last one breaks off."""

    spans: tuple[tuple[int, int], ...]
    whole: bool


def links(file: BinaryIO) -> Links | None:
    """The links of an Ogg file, None for any other file. Reads page headers only; `file` is left at its start."""
    size = file.seek(0, io.SEEK_END)
    starts, open_streams, after_first, at = [0], set[bytes](), False, 0
    file.seek(0)
    if file.read(len(CAPTURE)) != CAPTURE:
        file.seek(0)
        return None
    while at < size:
        file.seek(at)
        header = file.read(HEADER_BYTES + 255)
        if not header.startswith(CAPTURE) or len(header) < HEADER_BYTES:
            at = _next_page(file, at + 1, size)
            continue
        kind, serial = header[5], header[14:18]
        if kind & FIRST_PAGE:
            if after_first:
                starts.append(at)
                open_streams.clear()
            open_streams.add(serial)
        after_first = not kind & FIRST_PAGE
        at += HEADER_BYTES + header[26] + sum(header[HEADER_BYTES : HEADER_BYTES + header[26]])
        if kind & LAST_PAGE and at <= size:
            open_streams.discard(serial)
    file.seek(0)
    return Links(tuple(zip(starts, [*starts[1:], size], strict=True)), whole=not open_streams)


def _next_page(file: BinaryIO, at: int, size: int) -> int:
    """Where the next page begins, from `at` on, in a file that is damaged there; `size` if there is none."""
    while at < size:
        file.seek(at)
        block = file.read(LONGEST_PAGE)
        found = block.find(CAPTURE)
        if found >= 0:
            return at + found
        at += max(1, len(block) - len(CAPTURE) + 1)
    return size


class Span(io.RawIOBase):
    """Bytes [start, end) of a file as a file of their own; closing it leaves the file open."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end, self._at = file, start, end, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._end - self._at)
        self._file.seek(self._at)
        block = self._file.read(left if size < 0 else min(size, left))
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        self._at = max(self._start, origin + offset)
        return self.tell()

    def tell(self) -> int:
        return self._at - self._start
