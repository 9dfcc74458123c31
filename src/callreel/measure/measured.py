"""What `callreel bench` has found out about models on this machine, kept in the data folder for `callreel models`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from callreel import clock


class Speed(msgspec.Struct, frozen=True):
    """Seconds of audio a second with so many threads, measured `at` (RFC 3339)."""

    rtfx: float
    threads: int
    at: str


def speeds(data_dir: Path) -> dict[str, Speed]:
    """By the model's name, as it was given to `bench`; empty where nothing was measured, or not readably."""
    try:
        return msgspec.json.decode(_path(data_dir).read_bytes(), type=dict[str, Speed])
    except (OSError, msgspec.DecodeError):
        return {}


def remember(data_dir: Path, model: str, rtfx: float, threads: int) -> None:
    """Put what was measured last in the place of what was known of this model."""
    path = _path(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = speeds(data_dir) | {model: Speed(round(rtfx, 1), threads, clock.now())}
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")
    draft.replace(path)


def _path(data_dir: Path) -> Path:
    return data_dir / "bench" / "models.json"
