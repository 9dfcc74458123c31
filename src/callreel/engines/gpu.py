"""What the graphics card says of itself, through NVIDIA's management library if there is one; nothing is installed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

NVML = "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first card: memory in bytes, use in percent of the last second or so."""

    name: str
    total_bytes: int
    used_bytes: int
    percent: float

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


def first(library: str = NVML) -> Gpu | None:
    """The first card as it is now; None where there is none, or no driver."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        device, memory, use = ctypes.c_void_p(), _Memory(), _Utilization()
        name = ctypes.create_string_buffer(96)
        failed = (
            nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
            or nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
            or nvml.nvmlDeviceGetName(device, name, len(name))
        )
        if failed:
            return None
        nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(use))  # not every card says; then it stays 0
        return Gpu(name.value.decode(errors="replace"), memory.total, memory.used, float(use.gpu))
    finally:
        nvml.nvmlShutdown()
