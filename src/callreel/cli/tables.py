"""Tables for people: columns as wide as their widest cell."""

from __future__ import annotations

from collections.abc import Sequence

import click

GAP = "  "


def table(rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    """`rows` under `head` (if given), a line each; columns in `right` are set flush right. Cells may be styled."""
    lines = [tuple(head), *map(tuple, rows)] if head else [tuple(row) for row in rows]
    widths = [max(len(click.unstyle(line[i])) for line in lines) for i in range(len(lines[0]))] if lines else []

    def cell(text: str, column: int) -> str:
        room = " " * (widths[column] - len(click.unstyle(text)))
        return room + text if column in right else text + room

    return "\n".join(GAP.join(cell(text, i) for i, text in enumerate(line)).rstrip() for line in lines)


def size(number: float) -> str:
    """Bytes as people say them: three digits at most, in powers of ten, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 999.5:
            return f"{number:.0f} {unit}" if number >= 9.95 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
