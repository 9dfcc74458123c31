"""How much sound a file says it holds, so that one which breaks off is found out."""

from __future__ import annotations

import struct
from typing import BinaryIO

import av

ENDLESS_BYTES = 0x7FFF_F000  # what recorders that write into a pipe give as the size: they do not know it
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
    file.seek(0)
    riff = file.read(12)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        return None
    bytes_per_second = 0
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            return size / bytes_per_second if bytes_per_second and size < ENDLESS_BYTES else None
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
