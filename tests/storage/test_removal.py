from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from callreel.storage.folders import DataFolder
from callreel.storage.removal import calls_with_files, remove_call, remove_sources

NOW = time.time()


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.create()
    return made


def write(path: Path, age_s: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"sound")
    for touched in (path, path.parent):
        os.utime(touched, (NOW - age_s, NOW - age_s))
    return path


def test_a_call_is_removed_wherever_it_has_files(folder: DataFolder) -> None:
    gone = [write(folder.source_of("a")), write(folder.live / "a" / "stream" / "000000.s16")]
    kept = [write(folder.source_of("b")), write(folder.live / "b" / "stream" / "000000.s16")]
    remove_call(folder, "a")
    remove_call(folder, "a")
    remove_call(folder, "never was")
    assert not any(path.exists() or path.parents[0].exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_calls_whose_files_are_old(folder: DataFolder) -> None:
    assert calls_with_files(folder, NOW) == set()
    write(folder.source_of("old"), age_s=7200)
    write(folder.source_of("new"), age_s=10)
    write(folder.source_of("both"), age_s=7200)
    write(folder.live / "both" / "stream", age_s=10)
    assert calls_with_files(folder, NOW - 3600) == {"old"}
    assert calls_with_files(folder, NOW + 1) == {"old", "new", "both"}


def test_old_sources_go_and_what_is_needed_stays(folder: DataFolder) -> None:
    old, needed = write(folder.source_of("old"), age_s=7200), write(folder.source_of("needed"), age_s=7200)
    new, shared = write(folder.source_of("new")), write(folder.source_of("shared"), age_s=7200)
    clip = write(shared.with_name("clip"))
    assert set(remove_sources(folder, NOW - 3600, {"needed"})) == {"old", "shared"}
    assert [path.exists() for path in (old.parent, needed, new, shared, clip)] == [False, True, True, False, True]
    assert remove_sources(folder, NOW - 3600, {"needed"}) == []


def test_a_folder_that_was_never_used(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "nothing")
    assert calls_with_files(folder, NOW) == set()
    assert remove_sources(folder, NOW, ()) == []
