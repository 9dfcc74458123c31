"""What is removed from the data folder. A removal that was cut off is gone on with by the next."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from callreel.storage.folders import DataFolder


def remove_call(folder: DataFolder, call_id: str) -> None:
    """Remove all files of a call; that there are none is no error. The call's rows are gone already."""
    for place in _places(folder):
        shutil.rmtree(place / call_id, ignore_errors=True)


def remove_work(folder: DataFolder, job_id: str) -> None:
    """Remove what a job needed to go on."""
    shutil.rmtree(folder.work_of(job_id), ignore_errors=True)


def remove_job(folder: DataFolder, job_id: str) -> None:
    """Remove what a job needed to go on, and its log."""
    remove_work(folder, job_id)
    folder.log_of(job_id).unlink(missing_ok=True)


def calls_with_files(folder: DataFolder, before: float) -> set[str]:
    """The ids of calls that have files, none of them newer than `before`, seconds since the epoch.

    Those that no row tells of are left over: a deletion was cut off, or an upload before its row was written.
    """
    newest: dict[str, float] = {}
    for place in _places(folder):
        for of_call in _listed(place):
            with suppress(OSError):  # it may go while we look
                times = [of_call.stat().st_mtime, *(file.stat().st_mtime for file in _listed(of_call))]
                newest[of_call.name] = max(newest.get(of_call.name, 0.0), *times)
    return {call_id for call_id, at in newest.items() if at < before}


def remove_source(folder: DataFolder, call_id: str) -> None:
    """Remove the file that a call was made from, if there is one."""
    source = folder.source_of(call_id)
    with suppress(OSError):
        source.unlink()
        source.parent.rmdir()  # if that was all it held


def jobs_with_logs(folder: DataFolder, before: float) -> set[str]:
    """The ids of jobs whose logs are older than `before`, seconds since the epoch."""
    found = set()
    for path in _listed(folder.job_logs):
        with suppress(OSError):
            if path.stat().st_mtime < before:
                found.add(path.stem)
    return found


def remove_sources(folder: DataFolder, before: float, needed: Collection[str]) -> list[str]:
    """Remove the files that calls were made from, older than `before`, seconds since the epoch; whose, is returned.

    `needed` are the ids of calls with jobs that have not ended.
    """
    removed = []
    for of_call in _listed(folder.objects / "calls"):
        source = folder.source_of(of_call.name)
        with suppress(OSError):
            if of_call.name not in needed and source.stat().st_mtime < before:
                source.unlink()
                removed.append(of_call.name)
                of_call.rmdir()  # if that was all it held
    return removed


def _places(folder: DataFolder) -> tuple[Path, ...]:
    """The folders with a folder a call in them."""
    return folder.objects / "calls", folder.live


def _listed(path: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from path.iterdir()
