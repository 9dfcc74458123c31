"""`callreel` as a person uses it: words in, output and exit code out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from callreel.cli import main

DEADLINE_S = 60.0


def callreel(*words: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "callreel", *map(str, words)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def inside(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, where what a command imports is there already."""
    ended = CliRunner().invoke(main, [*map(str, words)], env=environment)
    return subprocess.CompletedProcess(words, ended.exit_code, ended.stdout, ended.stderr)


def refused(ended: subprocess.CompletedProcess[str], code: int = 1) -> list[str]:
    """The lines of a refusal: what is wrong, then what to do."""
    assert ended.returncode == code and ended.stdout == "" and "Traceback" not in ended.stderr, ended
    return ended.stderr.strip().splitlines()
