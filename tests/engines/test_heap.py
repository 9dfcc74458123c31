from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from callreel.engines import heap

# Page faults of taking, touching and giving back 48 MB, in a thread, as engines do; not the first time.
SCRIPT = """
import resource, sys, threading
import numpy as np
from callreel.engines.heap import keep_large_blocks

if sys.argv[1:]:
    keep_large_blocks()

def work():
    np.ones(6_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(6_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(*flags: str) -> int:
    shown = subprocess.run([sys.executable, "-c", SCRIPT, *flags], capture_output=True, text=True, check=True)
    return int(shown.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc: nothing is kept there")
def test_blocks_that_were_given_back_cost_no_faults_again() -> None:
    assert faults("keep") < faults() / 10


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    heap.keep_large_blocks()
