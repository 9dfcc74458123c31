"""The data folder: what lies where. Names inside are ids that we made; no path ever comes from a client."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Every place Callreel writes to on this machine."""

    root: Path

    def create(self) -> None:
        """Make the folders, readable by this user only, and empty those that hold nothing across a restart."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for transient in (self.work, self.run):
            shutil.rmtree(transient, ignore_errors=True)
        for folder in (self.live, self.objects, self.work, self.run):
            folder.mkdir(exist_ok=True)

    @property
    def live(self) -> Path:
        """Logs of live audio, a folder a call."""
        return self.root / "live"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def work(self) -> Path:
        """Scratch folders of running jobs."""
        return self.root / "work"

    @property
    def run(self) -> Path:
        """Sockets of the engine processes."""
        return self.root / "run"

    def source_of(self, call_id: str) -> Path:
        """The file that a call was made from."""
        return self.objects / "calls" / call_id / "source"

    def work_of(self, job_id: str) -> Path:
        return self.work / job_id
