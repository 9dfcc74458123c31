"""The end of a text file that may be long and may still grow."""

from __future__ import annotations

from pathlib import Path

PIECE_BYTES = 1 << 16
MOST_BYTES = 8 << 20  # of one answer


def last_lines(path: Path, lines: int | None = None) -> bytes:
    """The last `lines` lines (None: all), at most about MOST_BYTES, from the start of a line on; b"" without a file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return b""
    with file:
        at = end = file.seek(0, 2)
        text = b""
        while at > 0 and end - at < MOST_BYTES and (lines is None or text.count(b"\n") <= lines):
            step = min(PIECE_BYTES, at)
            at = file.seek(at - step)
            text = file.read(step) + text
    kept = text.splitlines(keepends=True)
    if at > 0:
        kept = kept[1:]  # it was cut
    return b"".join(kept if lines is None else kept[-lines:])
