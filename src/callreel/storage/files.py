"""Files that must be whole: there with all their bytes after a crash, or not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from callreel.errors import InvalidInput, TooLarge

COPY_BYTES = 1 << 20


def keep(source: BinaryIO, target: Path, *, limit_bytes: int) -> None:
    """Copy `source` to `target`, whose folder is made for it alone and removed again if anything fails.

    Raises TooLarge beyond `limit_bytes`, InvalidInput for an empty file, OSError.
    """
    target.parent.mkdir(parents=True)
    part = target.with_suffix(".part")
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(source, file, COPY_BYTES)
            if file.tell() > limit_bytes:
                raise TooLarge(f"The file is larger than {limit_bytes} bytes", limit_bytes=limit_bytes)
            if file.tell() == 0:
                raise InvalidInput("The file is empty")
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
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
