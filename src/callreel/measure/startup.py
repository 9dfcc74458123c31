"""How long it takes until something is there: the command line's help, and a server that is ready."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callreel.measure.harness import ServerProcess

TARGET_HELP_S, TARGET_READY_S = 0.4, 3.0
NO_MODEL = {"CALLREEL_MODELS_DOWNLOAD": "false"}  # with a network, a server may be fetching one; this is the plain case


def run(*, iterations: int = 10) -> dict[str, Any]:
    """Wall times from the start of a process: of `callreel --help` to its end, of `callreel serve`, over a new data
    folder on a machine without a model, until /ready answers 200. One run of each before them does not count.
    """
    shown = [_help_s() for _ in range(iterations + 1)][1:]
    ready = [_ready_s() for _ in range(iterations + 1)][1:]
    return {
        "help_s": shown,
        "help_s_median": statistics.median(shown),
        "target_help_s": TARGET_HELP_S,
        "ready_s": ready,
        "ready_s_median": statistics.median(ready),
        "target_ready_s": TARGET_READY_S,
    }


def _help_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "callreel", "--help"], stdout=subprocess.DEVNULL, check=True, env=os.environ)
    return round(time.perf_counter() - began, 4)


def _ready_s() -> float:
    with TemporaryDirectory(prefix="callreel-") as name:
        began = time.perf_counter()
        with ServerProcess(Path(name), environment=NO_MODEL):
            return round(time.perf_counter() - began, 4)


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    return "\n".join(
        f"{what}: median {result[f'{key}_s_median']:.3f} s of {len(result[f'{key}_s'])}, at most"
        f" {max(result[f'{key}_s']):.3f} s (target {result[f'target_{key}_s']:.1f} s)"
        for what, key in (("callreel --help", "help"), ("callreel serve to /ready", "ready"))
    )
