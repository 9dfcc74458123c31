from __future__ import annotations

import subprocess
import sys

import psutil

from callreel.measure.harness import wait_for
from callreel.measure.memory import MemoryWatch, now_of, peak_of

MIB = 1 << 20
# Takes 64 MiB, gives them back, and says so.
GREEDY = "import sys; taken = bytearray(64 << 20); del taken; print('had', flush=True); sys.stdin.read()"


def greedy() -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", GREEDY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline().strip() == b"had"
    return process


def test_the_peak_is_seen_also_when_it_is_over() -> None:
    with greedy() as process:
        found = psutil.Process(process.pid)
        assert now_of(found) < 64 * MIB <= peak_of(found)
        process.kill()


def test_processes_come_and_go() -> None:
    alive: dict[str, psutil.Process] = {}
    with MemoryWatch(lambda: dict(alive)) as watched:
        for name in ("first", "second"):
            with greedy() as process:
                alive[name] = psutil.Process(process.pid)
                wait_for(lambda name=name: name in watched.peaks, 10, "it is seen")
                process.kill()
        alive["own"] = psutil.Process()
        wait_for(lambda: "own" in watched.peaks, 10, "it is seen")
    assert set(watched.peaks) == {"first", "second", "own"}
    assert watched.peaks["first"] >= 64 * MIB and watched.together == sum(watched.peaks.values())


def test_the_last_look_is_at_the_end() -> None:
    with MemoryWatch(lambda: {"own": psutil.Process()}, every_s=60) as watched:
        pass
    assert watched.together > MIB
