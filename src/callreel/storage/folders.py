"""The data folder: what lies where. Names inside are ids that we made; no path ever comes from a client."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ORPHAN_S = 24 * 3600.0  # an unfinished upload that nobody can be sending any more


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Every place Callreel writes to on this machine."""

    root: Path

    def create(self) -> None:
        """Make the folders, readable by this user only, and empty those that hold nothing across a restart."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self.run, ignore_errors=True)
        for folder in (self.live, self.objects, self.work, self.run, self.tmp, self.job_logs):
            folder.mkdir(parents=True, exist_ok=True)
        for orphan in self.tmp.iterdir():
            with suppress(OSError):
                if orphan.stat().st_mtime < time.time() - ORPHAN_S:
                    orphan.unlink()

    @property
    def tmp(self) -> Path:
        """Uploads on their way in; a finished one is renamed into its place."""
        return self.root / "tmp"

    @property
    def live(self) -> Path:
        """Logs of live audio, a folder a call."""
        return self.root / "live"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def work(self) -> Path:
        """What jobs need to go on after an interruption, a folder a job."""
        return self.root / "work"

    @property
    def run(self) -> Path:
        """Sockets of the engine processes."""
        return self.root / "run"

    def free_bytes(self) -> int:
        """Room on the disk of the data folder, for this user."""
        return shutil.disk_usage(self.root).free

    def source_of(self, call_id: str) -> Path:
        """The file that a call was made from."""
        return self.objects / "calls" / call_id / "source"

    @property
    def job_logs(self) -> Path:
        return self.root / "logs" / "jobs"

    def work_of(self, job_id: str) -> Path:
        return self.work / job_id

    def log_of(self, job_id: str) -> Path:
        """What the processes of a job logged."""
        return self.job_logs / f"{job_id}.log"

    def clear_work(self, unfinished: Collection[str]) -> None:
        """Remove the work of jobs that have ended; `unfinished` are the ids of all others."""
        for folder in self.work.iterdir():
            if folder.name not in unfinished:
                shutil.rmtree(folder, ignore_errors=True)
