"""What the machine has left: processor, memory, disk, graphics cards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import psutil

from callreel import clock
from callreel.engines import gpu
from callreel.engines.gpu import Gpu
from callreel.storage.folders import DataFolder

T = TypeVar("T")

FRESH_S = 1.0  # what is asked again within it is answered from memory
GPU_FRESH_S = 5.0
CPU_OVER_S = 0.1  # the share of the processor is that of so long


class Machine:
    """Looks at the machine in threads, and not more often than it makes sense."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._usage = _Remembered(self._read_usage, FRESH_S)
        self._gpus = _Remembered(gpu.cards, GPU_FRESH_S)

    async def usage(self) -> dict[str, float]:
        """Percents are 0 to 100, gigabytes 10^9 bytes."""
        return await self._usage.get()

    async def gpus(self) -> list[Gpu]:
        """Every card; none where there is no driver."""
        return await self._gpus.get()

    def _read_usage(self) -> dict[str, float]:
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._folder.root))
        return {
            "cpu_percent": psutil.cpu_percent(CPU_OVER_S),
            "memory_percent": memory.percent,
            "memory_available_gb": round(memory.available / 1e9, 2),
            "disk_percent": disk.percent,
            "disk_free_gb": round(disk.free / 1e9, 2),
        }


class _Remembered(Generic[T]):
    """The last answer of `read`, which runs in a thread, once for all who ask meanwhile."""

    def __init__(self, read: Callable[[], T], fresh_s: float) -> None:
        self._read, self._fresh_s = read, fresh_s
        self._reading: asyncio.Task[T] | None = None
        self._read_at = 0.0

    async def get(self) -> T:
        return await asyncio.shield(self._latest())

    def _latest(self) -> Awaitable[T]:
        task = self._reading
        if task is None or (task.done() and clock.monotonic() - self._read_at > self._fresh_s):
            task = self._reading = asyncio.create_task(self._look())
        return task

    async def _look(self) -> T:
        try:
            return await asyncio.to_thread(self._read)
        finally:
            self._read_at = clock.monotonic()
