"""How much sound a file says it holds, so that one which breaks off is found out."""

from __future__ import annotations

import struct
from typing import BinaryIO

import av

# What recorders that write into a pipe give as the size, for they do not know it: the most that 31 or 32 bits hold,
# often less the header. Sound of such a file that is shorter than any word was not meant to be all.
ENDLESS_BYTES = (range(0x7FFF_F000, 0x8000_0001), range(0xFFFF_F000, 0x1_0000_0000))
SHORTEST_S = 0.1
# Their length is stored nowhere: FFmpeg guesses it from the file's size and the first frames' bit rate.
GUESSED = frozenset({"aac", "ac3", "eac3", "dts", "loas", "amr", "g722", "gsm", "h264", "mpeg", "mpegts", "ogg"})


def claimed_s(file: BinaryIO, container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    """Seconds of `stream` by the file's own account, None where it gives none. `file` is put back where it stood."""
    at = file.tell()
    try:
        name = container.format.name
        if name in GUESSED or (name == "mp3" and not _mp3_counts_its_frames(file)):
            return None
        if name == "wav":
            return _wav_s(file)
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        # Of all streams together: a film may go on when its sound has ended.
        return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None
    finally:
        file.seek(at)


def _wav_s(file: BinaryIO) -> float | None:
    """By its header; FFmpeg corrects that by the size of the file."""
    there = file.seek(0, 2)
    file.seek(0)
    riff = file.read(12)
    if riff[:4] not in (b"RIFF", b"RF64") or riff[8:] != b"WAVE":
        return None
    bytes_per_second = 0
    long_size: int | None = None
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            if not bytes_per_second:
                return None
            if long_size is not None and size == 0xFFFF_FFFF:
                return long_size / bytes_per_second
            claimed_s: float = size / bytes_per_second
            endless = any(size in sizes for sizes in ENDLESS_BYTES)
            return None if endless and there - file.tell() >= SHORTEST_S * bytes_per_second else claimed_s
        if name == b"ds64" and size >= 16:  # EBU Tech 3306: sizes beyond 32 bits
            (long_size,) = struct.unpack("<8xQ", file.read(16))
            size -= 16
        if name == b"fmt " and size >= 16:
            (bytes_per_second,) = struct.unpack("<8xI4x", file.read(16))
            size -= 16
        file.seek(size + size % 2, 1)
    return None


def _mp3_counts_its_frames(file: BinaryIO) -> bool:
    """Whether the first frame, behind an ID3 tag, is an encoder's table of contents."""
    file.seek(0)
    tag = file.read(10)
    tag_bytes = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))
    file.seek(tag_bytes if tag[:3] == b"ID3" else 0)
    first_frame = file.read(2048)
    return any(mark in first_frame for mark in (b"Xing", b"Info", b"VBRI"))
