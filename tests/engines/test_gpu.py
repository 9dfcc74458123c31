from __future__ import annotations

import subprocess
from pathlib import Path

import ctranslate2
import pytest

from callreel.engines import gpu
from tests.conftest import missing

# What the driver's library does, for two cards, of which the second does not say how busy it is.
DRIVER = """
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned int gpu, memory; } use;
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **d) { *d = (void *)(long)(i + 1); return HANDLE; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) { m->total = 24; m->free = 19; m->used = 5; return 0; }
int nvmlDeviceGetName(void *d, char *name, unsigned int n) { __builtin_strcpy(name, "Card 9"); return 0; }
int nvmlDeviceGetUtilizationRates(void *d, use *u) { u->gpu = 40; return d == (void *)1 ? 0 : 3; }
"""


def test_without_a_driver_there_is_no_card() -> None:
    assert gpu.first("libno-such-driver.so") is None
    if ctranslate2.get_cuda_device_count() == 0:
        assert gpu.first() is None


@pytest.mark.parametrize(("init", "handle"), [(0, 0), (9, 0), (0, 2)])
def test_what_a_driver_says(init: int, handle: int, tmp_path: Path) -> None:
    source, library = tmp_path / "nvml.c", tmp_path / "libnvml.so"
    source.write_text(DRIVER)
    flags = [f"-DINIT={init}", f"-DHANDLE={handle}"]
    try:
        subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", library, source], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        missing("no C compiler to make a driver's library with")
    found = gpu.cards(str(library))
    if init or handle:
        assert found == []
        return
    assert found == [gpu.Gpu(0, "Card 9", 24, 5, 40.0), gpu.Gpu(1, "Card 9", 24, 5, None)]
    assert gpu.first(str(library)) == found[0] and found[0].free_bytes == 19
