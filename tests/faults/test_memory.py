"""The server's own memory stays what it is, however many jobs pass and models come and go."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from callreel.measure.harness import ServerProcess
from tests.server.helpers import TOY_AUDIO, caller, served, upload

MIB = 1 << 20
AT_ONCE = 5
FAKE = ("--engine", "tests.engines.fake_engines:load", "--model", "fake")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("warm_up", "cycles", "most_mib"), [(8, 24, 6), pytest.param(50, 600, 6, marks=pytest.mark.soak)]
)
def test_jobs_leave_nothing_in_memory(tmp_path: Path, warm_up: int, cycles: int, most_mib: int) -> None:
    with served(tmp_path, *FAKE, CALLREEL_JOBS_MAX_CONCURRENT="transcribe=2") as server:
        growth = grown(server, warm_up, cycles)
        assert growth < most_mib * MIB, f"{growth / MIB:.1f} MiB in {cycles} jobs"
        assert len(psutil.Process(server.pid).open_files()) < 30


@pytest.mark.parametrize(
    ("warm_up", "cycles", "most_mib"), [(3, 6, 6), pytest.param(20, 300, 6, marks=pytest.mark.soak)]
)
def test_models_leave_nothing_in_memory(tmp_path: Path, warm_up: int, cycles: int, most_mib: int) -> None:
    with served(tmp_path, *FAKE, CALLREEL_MODELS_UNLOAD="after_use") as server:
        growth = grown(server, warm_up, cycles)
        assert growth < most_mib * MIB, f"{growth / MIB:.1f} MiB in {cycles} loads"
        assert "batch" not in server.children()


def grown(server: ServerProcess, warm_up: int, cycles: int) -> int:
    """Bytes that the server is larger after so many jobs, in batches that the queue takes, than after the first."""
    process = psutil.Process(server.pid)
    jobs(server, warm_up)
    before = process.memory_info().rss
    jobs(server, cycles)
    return int(process.memory_info().rss - before)


def jobs(server: ServerProcess, n: int) -> None:
    with caller(server) as api:
        for first in range(0, n, AT_ONCE):
            made = [upload(api, TOY_AUDIO / "en_short.wav") for _ in range(min(AT_ONCE, n - first))]
            assert all(server.finished_job(job["id"])["state"] == "succeeded" for job in made)
