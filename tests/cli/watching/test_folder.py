"""Which files of a watched folder are wanted, and which are whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from callreel.cli.watching.folder import FAILED, Folder, Found, is_being_written, put_away


@pytest.fixture(autouse=True)
def no_death_by_lease() -> Iterator[None]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


def names(folder: Folder, now: float) -> list[str]:
    return [found.name for found in folder.look(now, lambda found: False)[0]]


def write(path: Path, text: str = "x", mtime: float = 1000.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (mtime, mtime))
    return path


def test_a_file_is_whole_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    folder = Folder(tmp_path, stable_s=5)
    write(tmp_path / "a.wav")
    assert names(folder, 0.0) == [] and names(folder, 4.9) == [] and names(folder, 5.0) == ["a.wav"]
    write(tmp_path / "a.wav", "longer")
    assert names(folder, 6.0) == [] and names(folder, 11.0) == ["a.wav"]
    write(tmp_path / "a.wav", "as big", mtime=1001)
    assert folder.look(12.0, lambda found: False) == ([], 1)
    assert folder.look(13.0, lambda found: True) == ([], 0)


def test_a_file_that_somebody_writes_to_is_not_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    folder = Folder(tmp_path, stable_s=0)
    with path.open("a"):
        assert is_being_written(path) and names(folder, 0.0) == []
    with path.open("rb"):
        assert not is_being_written(path) and names(folder, 0.0) == ["a.wav"]
    assert not is_being_written(tmp_path / "nothing")


def test_only_what_is_wanted_is_looked_at(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.mp3", "notes.txt", ".hidden.wav", "done/c.wav", "failed/c.wav", "in/d.wav", ".in/e.wav"):
        write(tmp_path / name)
    write(tmp_path / "in" / "done" / "f.wav")
    os.utime(tmp_path / "b.WAV", (1, 1))
    (tmp_path / "gone.wav").symlink_to("nowhere")
    assert names(Folder(tmp_path, stable_s=0), 0.0) == ["b.WAV", "a.mp3"]  # oldest first
    below = names(Folder(tmp_path, stable_s=0, recursive=True), 0.0)
    assert below == ["b.WAV", "a.mp3", "in/d.wav", "in/done/f.wav"]
    assert names(Folder(tmp_path, ("a*", "*.txt"), stable_s=0), 0.0) == ["a.mp3", "notes.txt"]


def test_what_is_put_away_replaces_nothing(tmp_path: Path) -> None:
    moved = []
    for text in ("1", "2", "3"):
        path = write(tmp_path / "in" / "a.wav", text)
        moved.append(put_away(Found(path, "in/a.wav", 1, 0), tmp_path, FAILED))
    assert [path.relative_to(tmp_path).as_posix() for path in moved] == [
        "failed/in/a.wav",
        "failed/in/a-2.wav",
        "failed/in/a-3.wav",
    ]
    assert [path.read_text() for path in moved] == ["1", "2", "3"]
