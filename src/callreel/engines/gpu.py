"""What the graphics cards say of themselves, through NVIDIA's management library, where a driver brought it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

NVML = "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card: memory in bytes, use in percent of the last second or so, None where the card does not say."""

    index: int
    name: str
    total_bytes: int
    used_bytes: int
    percent: float | None

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


def first(library: str = NVML) -> Gpu | None:
    """The first card as it is now; None where there is none, or no driver."""
    return next(iter(cards(library)), None)


def cards(library: str = NVML) -> list[Gpu]:
    """Every card as it is now; none where there is no driver. Takes milliseconds."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return []
    if nvml.nvmlInit_v2() != 0:
        return []
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        return [card for index in range(count.value) if (card := _card(nvml, index)) is not None]
    finally:
        nvml.nvmlShutdown()


def _card(nvml: ctypes.CDLL, index: int) -> Gpu | None:
    device, memory, use = ctypes.c_void_p(), _Memory(), _Utilization()
    name = ctypes.create_string_buffer(96)
    failed = (
        nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        or nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
        or nvml.nvmlDeviceGetName(device, name, len(name))
    )
    if failed:
        return None
    told = nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(use)) == 0
    percent = float(use.gpu) if told else None
    return Gpu(index, name.value.decode(errors="replace"), memory.total, memory.used, percent)
