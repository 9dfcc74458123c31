"""The end of a text file."""

from __future__ import annotations

from pathlib import Path

import pytest

from callreel.server import tail
from callreel.server.tail import last_lines


def test_the_last_lines_are_whole(tmp_path: Path) -> None:
    lines = [f"line {n}\n".encode() for n in range(50_000)]
    (tmp_path / "log").write_bytes(b"".join(lines) + b"without an end")
    assert last_lines(tmp_path / "log", 1) == b"without an end"
    assert last_lines(tmp_path / "log", 3) == b"".join(lines[-2:]) + b"without an end"
    assert last_lines(tmp_path / "log") == b"".join(lines) + b"without an end"
    assert last_lines(tmp_path / "log", 10**6) == last_lines(tmp_path / "log")
    assert last_lines(tmp_path / "none", 3) == b""


def test_of_a_very_long_file_comes_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MOST_BYTES", 100_000)
    (tmp_path / "log").write_bytes(b"".join(b"line %d\n" % n for n in range(100_000)))
    text = last_lines(tmp_path / "log")
    assert text.startswith(b"line ") and text.endswith(b"line 99999\n") and 50_000 < len(text) < 200_000
