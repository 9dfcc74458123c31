"""A file that is taken in is in its place, or nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from callreel.storage.files import adopt


def test_it_is_moved(tmp_path: Path) -> None:
    source, target = tmp_path / "upload", tmp_path / "calls" / "1" / "source"
    source.write_bytes(b"sound")
    adopt(source, target)
    assert target.read_bytes() == b"sound" and not source.exists()


def test_what_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        adopt(tmp_path / "none", tmp_path / "calls" / "1" / "source")
    assert not (tmp_path / "calls" / "1").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "upload", tmp_path / "calls" / "1" / "source"
    source.write_bytes(b"sound")
    adopt(source, target)
    source.write_bytes(b"other")
    with pytest.raises(FileExistsError):
        adopt(source, target)
    assert target.read_bytes() == b"sound" and source.exists()
