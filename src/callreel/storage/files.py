"""Files that must be whole: there with all their bytes after a crash, or not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def adopt(path: Path, target: Path) -> None:
    """Move the file at `path`, whose bytes are on the disk, to `target`, and make that outlive a power cut.

    The target's folder is made for it alone, and removed again if anything fails. Raises OSError.
    """
    target.parent.mkdir(parents=True)
    try:
        path.rename(target)
        for folder in (target.parent, target.parent.parent):
            _sync_names(folder)
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise


def _sync_names(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
