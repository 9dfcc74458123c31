"""What was done with each file of a watched folder: a line a change, in a file that outlives the process."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Literal

from callreel import clock
from callreel.cli.watching.folder import Found
from callreel.errors import Conflict

State = Literal["sent", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to one file. `put_away`: it is not in its place any more, so one that is there came back."""

    name: str
    size: int
    mtime_ns: int
    sha256: str
    state: State
    job_id: str = ""
    attempt: int = 1
    put_away: bool = False
    at: str = ""

    def is_of(self, found: Found) -> bool:
        """Is this the same file, unchanged?"""
        return (self.name, self.size, self.mtime_ns) == (found.name, found.size, found.mtime_ns)


class Journal:
    """The last entry of each name, and of each content. A torn last line, of a crash, is as if never written."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._of_name: dict[str, Entry] = {}
        self._of_content: dict[str, Entry] = {}
        known = {field.name for field in fields(Entry)}
        file.seek(0)
        for line in file:
            try:
                said = json.loads(line)
                self._keep(Entry(**{name: value for name, value in said.items() if name in known}))
            except (ValueError, TypeError, AttributeError):
                continue

    @classmethod
    @contextmanager
    def open(cls, folder: Path, watched: Path) -> Iterator[Journal]:
        """The journal of a watched folder, kept under `folder`. Raises Conflict while another process has it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256(str(watched.resolve()).encode(errors="surrogateescape")).hexdigest()[:12]
        with (folder / f"{watched.resolve().name or 'root'}-{digest}.jsonl").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"Another `callreel watch` looks after {watched} already") from None
            yield cls(file)

    def of_name(self, name: str) -> Entry | None:
        return self._of_name.get(name)

    def of_content(self, sha256: str) -> Entry | None:
        return self._of_content.get(sha256)

    def sent(self) -> list[Entry]:
        """Those whose jobs are not known to have ended, oldest first."""
        return [entry for entry in self._of_name.values() if entry.state == "sent"]

    def write(self, entry: Entry) -> None:
        self._keep(entry)
        self._file.write("\n" * self._is_torn() + json.dumps(asdict(entry) | {"at": clock.now()}) + "\n")
        self._file.flush()

    def _keep(self, entry: Entry) -> None:
        self._of_name[entry.name] = entry
        self._of_content[entry.sha256] = entry

    def _is_torn(self) -> bool:
        """Does the file end inside a line?"""
        end = self._file.seek(0, 2)
        if end == 0:
            return False
        with Path(self._file.name).open("rb") as raw:
            raw.seek(-1, 2)
            return raw.read(1) != b"\n"
