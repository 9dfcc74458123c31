"""Files that others drop into a folder: which are wanted, and which are written to the end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

DONE, FAILED = "done", "failed"  # folders of our own inside the watched one
PATTERNS = (
    *("*.aac", "*.aif", "*.aiff", "*.amr", "*.au", "*.caf", "*.flac", "*.gsm", "*.m4a", "*.m4b", "*.mka", "*.mp2"),
    *("*.mp3", "*.oga", "*.ogg", "*.opus", "*.wav", "*.wave", "*.weba", "*.wma"),
    *("*.avi", "*.mkv", "*.mov", "*.mp4", "*.mpeg", "*.mpg", "*.ts", "*.webm", "*.wmv"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """One file as it was seen; `name` is its path inside the folder, with slashes."""

    path: Path
    name: str
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Folder:
    """A folder that is looked at again and again.

    A file counts as written when its size and time of change were the same for `stable_s` seconds, and nobody has it
    open for writing, where the system tells that. Hidden files are not looked at: that is how others name what they
    are still writing.
    """

    root: Path
    patterns: Sequence[str] = PATTERNS
    recursive: bool = False
    stable_s: float = 5.0
    _since: dict[Found, float] = field(default_factory=dict)

    def look(self, now: float, is_through: Callable[[Found], bool]) -> tuple[list[Found], int]:
        """Files that are written, oldest first, and how many may not be yet; none of them `is_through`.

        `now` is monotonic seconds.
        """
        there = [found for found in self._files() if not is_through(found)]
        self._since = {found: self._since.get(found, now) for found in there}
        written = [
            found for found in there if now - self._since[found] >= self.stable_s and not is_being_written(found.path)
        ]
        return sorted(written, key=lambda found: (found.mtime_ns, found.name)), len(there) - len(written)

    def _files(self) -> Iterator[Found]:
        for folder, below, names in os.walk(self.root):
            here = Path(folder)
            kept = [name for name in below if not name.startswith(".")] if self.recursive else []
            below[:] = sorted(name for name in kept if here != self.root or name not in (DONE, FAILED))
            for name in names:
                if not name.startswith(".") and self._is_wanted(name):
                    with suppress(OSError):  # gone meanwhile
                        path = here / name
                        stat = path.stat()
                        yield Found(path, path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime_ns)

    def _is_wanted(self, name: str) -> bool:
        return any(fnmatch(name.lower(), pattern.lower()) for pattern in self.patterns)


def is_being_written(path: Path) -> bool:
    """Does any process on this machine have it open for writing? False where the system does not tell.

    Linux grants a read lease only on a file without writers. Whoever opens it for writing while we hold one sends us
    SIGIO, which the process must ignore.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # another's file, or a file system without leases
        return False
    finally:
        os.close(fd)
    return False


def put_away(found: Found, root: Path, into: str) -> Path:
    """Move a file into our folder `into`, under its own name or, where that is taken, the first free one."""
    target = root / into / found.name
    target.parent.mkdir(parents=True, exist_ok=True)
    free, number = target, 1
    while free.exists():
        number += 1
        free = target.with_name(f"{target.stem}-{number}{target.suffix}")
    return found.path.rename(free)
