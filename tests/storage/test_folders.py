"""The data folder: what a start leaves and what it clears away."""

from __future__ import annotations

import os
import time
from pathlib import Path

from callreel.storage.folders import ORPHAN_S, DataFolder


def test_a_start_clears_uploads_that_nobody_can_be_sending_any_more(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    fresh, orphan = folder.tmp / "upload-fresh", folder.tmp / "upload-orphan"
    for file in (fresh, orphan):
        file.write_bytes(b"sound")
    os.utime(orphan, (0, time.time() - ORPHAN_S - 60))
    folder.create()
    assert fresh.exists() and not orphan.exists()
