"""How long an upload takes over loopback, against a plain copy of the file, and what it costs the server in memory."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from callreel.measure.harness import ServerProcess
from callreel.measure.material import babble_file
from callreel.measure.memory import MemoryWatch, now_of

TARGET_FACTOR, TARGET_PLUS_S = 2.0, 0.5
LOOK_EVERY_S = 0.01
# Nobody works on what was uploaded: the next upload is measured, not the last one's transcription.
ENVIRONMENT = {"CALLREEL_JOBS_MAX_CONCURRENT": "transcribe=0", "CALLREEL_JOBS_QUEUE_LIMIT": "1000"}


def run(*, megabytes: float = 100.0, iterations: int = 5) -> dict[str, Any]:
    """Copy and upload take turns, on one disk, after one upload of a few bytes that does not count."""
    copies, uploads, grown = list[float](), list[float](), list[int]()
    size = int(megabytes * 1e6)
    with TemporaryDirectory(prefix="callreel-") as name:
        folder = Path(name)
        file = babble_file(folder / "call.wav", size / 32_000)
        small = babble_file(folder / "small.wav", 1.0)
        flags = ("--engine", "pocketsphinx", "--live-engine", "pocketsphinx")
        environment = ENVIRONMENT | {"CALLREEL_MAX_FILE_SIZE": str(2 * size)}
        with ServerProcess(folder / "data", *flags, environment=environment) as server:
            server.transcribe(small)
            serve = psutil.Process(server.pid)
            for turn in range(iterations):
                copies.append(_copied(file, folder / "copy.wav"))
                before = now_of(serve)
                _touched(file, turn)
                with MemoryWatch(lambda: {"serve": serve}, measure=now_of, every_s=LOOK_EVERY_S) as watched:
                    began = time.perf_counter()
                    server.transcribe(file)
                    uploads.append(round(time.perf_counter() - began, 4))
                grown.append(watched.together - before)
    copy_s, upload_s = statistics.median(copies), statistics.median(uploads)
    return {
        "bytes": size,
        "copy_s": copies,
        "upload_s": uploads,
        "copy_s_median": copy_s,
        "upload_s_median": upload_s,
        "target_s": round(TARGET_FACTOR * copy_s + TARGET_PLUS_S, 4),
        "serve_grew_bytes": max(grown),
    }


def _copied(file: Path, copy: Path) -> float:
    """Seconds of a plain `cp` (the library's copy where there is none)."""
    program = shutil.which("cp")
    began = time.perf_counter()
    if program:
        subprocess.run([program, str(file), str(copy)], check=True)
    else:
        shutil.copyfile(file, copy)
    spent_s = time.perf_counter() - began
    copy.unlink()
    return round(spent_s, 4)


def _touched(file: Path, turn: int) -> None:
    """Another content each time: the same file again might be recognised."""
    with file.open("r+b") as content:
        content.seek(-2, os.SEEK_END)
        content.write(turn.to_bytes(2, "little"))


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    return (
        f"{result['bytes'] / 1e6:.0f} MB: cp {result['copy_s_median']:.3f} s, upload {result['upload_s_median']:.3f} s"
        f" (medians of {len(result['copy_s'])}; target {result['target_s']:.3f} s);"
        f" serve grew by {result['serve_grew_bytes'] / 1e6:.1f} MB at most"
    )
