"""The models in memory: one engine process for each (class, model), shared by all who want it, gone when nobody does.

A process is the one way to give memory back for certain: libraries keep what they freed. What counts is the measured
memory of the process, workspace included, not the size of the weights.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from callreel import clock, metrics
from callreel.engines import models, shelf
from callreel.engines.base import EngineSpec
from callreel.server.supervision import BATCH_NICE, EngineProcess

log = logging.getLogger("callreel.server")

Role = Literal["live", "batch"]
LOOK_EVERY_S = 5.0
UNMEASURED_GPU_BYTES = 4 << 30  # of a model that is not in the catalogue
UNMEASURED_BYTES = 300 << 20  # of an engine process without its weights: libraries and workspace


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`memory` is bytes of all batch models together, `gpu_memory` those of all models on the GPU, 0 where there is
    none; `max_loaded` is the number of batch models, None for any.
    """

    memory: int
    gpu_memory: int = 0
    max_loaded: int | None = None
    unload: Literal["never", "idle", "after_use"] = "idle"
    idle_s: float = 600.0


@dataclass(eq=False, slots=True)
class Lease:
    """The right to call an engine at `path`. Set `broken` where it could not load: the next one tries anew."""

    path: Path
    broken: bool = False


@dataclass(eq=False, slots=True)
class _Loaded:
    process: EngineProcess
    users: int = 0
    used_at: float = field(default_factory=clock.monotonic)

    @property
    def memory(self) -> int:
        """Resident bytes of the process, 0 while it has none."""
        with suppress(psutil.Error):
            return int(psutil.Process(self.process.pid).memory_info().rss) if self.process.pid else 0
        return 0


class EnginePool:
    """Starts engine processes when they are wanted and ends those that are not, least recently used first."""

    def __init__(self, folder: Path, limits: PoolLimits) -> None:
        self._folder, self._limits = folder, limits
        self._loaded: dict[tuple[Role, EngineSpec], _Loaded] = {}
        self._broken: set[_Loaded] = set()  # in use still, by those who will find out
        self._room = asyncio.Condition()  # notified when a process is let go
        self._started = 0
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watch = asyncio.create_task(self._look_after(), name="engine-pool")

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.gather(*(self._end(key) for key in list(self._loaded)))
        await asyncio.gather(*(loaded.process.stop() for loaded in self._broken))

    @asynccontextmanager
    async def lease(self, role: Role, spec: EngineSpec) -> AsyncIterator[Lease]:
        """An engine for `spec`, started if there is none yet; waits while all memory is taken by engines at work."""
        key = (role, spec)
        async with self._room:
            while key not in self._loaded and not self._has_room(role, spec):
                if not await self._end_idle():
                    await self._room.wait()
            if key not in self._loaded:
                await self._begin(key)
            loaded = self._loaded[key]
            loaded.users += 1
        lease = Lease(loaded.process.path)
        try:
            yield lease
        finally:
            loaded.users -= 1
            loaded.used_at = clock.monotonic()
            async with self._room:
                if lease.broken and self._loaded.get(key) is loaded:
                    del self._loaded[key]  # whoever comes next gets a new one; its last user ends this one
                    self._broken.add(loaded)
                if not loaded.users:
                    if loaded in self._broken:
                        await loaded.process.stop()
                        self._broken.discard(loaded)
                    elif self._loaded.get(key) is loaded and self._limits.unload == "after_use":
                        await self._end(key)
                self._room.notify_all()

    def memory(self) -> dict[tuple[Role, str], int]:
        """Resident bytes by (class, model)."""
        found: dict[tuple[Role, str], int] = {}
        for (role, spec), loaded in self._loaded.items():
            found[role, spec.model] = found.get((role, spec.model), 0) + loaded.memory
        return found

    def _has_room(self, role: Role, spec: EngineSpec) -> bool:
        """Live engines always have; a batch model that is larger than the bound runs alone."""
        others = [loaded for (other, _), loaded in self._loaded.items() if other == "batch"]
        if role == "live" or not others:
            return True
        if self._limits.max_loaded is not None and len(others) >= self._limits.max_loaded:
            return False
        if self._limits.gpu_memory and spec.device != "cpu":
            taken = sum(_on_gpu(other) for _, other in self._loaded if other.device != "cpu")
            if taken + _on_gpu(spec) > self._limits.gpu_memory:
                return False
        return sum(loaded.memory for loaded in others) + _expected(spec) <= self._limits.memory

    async def _begin(self, key: tuple[Role, EngineSpec]) -> None:
        role, spec = key
        self._started += 1
        nice = BATCH_NICE if role == "batch" else 0
        process = EngineProcess(role, spec, self._folder / f"{role}-{self._started}.sock", nice=nice)
        self._loaded[key] = _Loaded(process)
        try:
            await process.start()
        except BaseException:
            del self._loaded[key]
            await process.stop()
            raise
        log.info("the %s engine %s %s is started", role, spec.engine, spec.model)

    async def _end(self, key: tuple[Role, EngineSpec]) -> None:
        role, spec = key
        await self._loaded[key].process.stop()
        del self._loaded[key]  # not before: cancelled in the middle, it is ended again
        with suppress(KeyError):
            metrics.model_memory.remove(role, spec.model)
        log.info("the %s engine %s %s is unloaded", role, spec.engine, spec.model)

    async def _end_idle(self, *, since_s: float = 0.0) -> bool:
        """End the batch engine that has been without work for longest; False if none has been for `since_s`."""
        idle = {
            key: loaded.used_at
            for key, loaded in self._loaded.items()
            if key[0] == "batch" and not loaded.users and clock.monotonic() - loaded.used_at >= since_s
        }
        if not idle:
            return False
        await self._end(min(idle, key=lambda key: idle[key]))
        return True

    async def _look_after(self) -> None:
        """Unload what is idle for too long, and, since engines grow at work, what is too much together."""
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S, max(0.1, self._limits.idle_s / 4)))
            async with self._room:
                if self._limits.unload == "idle":
                    while await self._end_idle(since_s=self._limits.idle_s):
                        self._room.notify_all()
                batch = [loaded for (role, _), loaded in self._loaded.items() if role == "batch"]
                if len(batch) > 1 and sum(loaded.memory for loaded in batch) > self._limits.memory:
                    await self._end_idle()
                    self._room.notify_all()
            for (role, model), resident in self.memory().items():
                metrics.model_memory.labels(role, model).set(resident)


def _expected(spec: EngineSpec) -> int:
    """Bytes that an engine will take, to be measured once it is there."""
    if (info := models.known(spec.model)) is not None:
        return info.ram_bytes
    weights = Path(spec.model) / shelf.WEIGHTS
    return UNMEASURED_BYTES + (2 * weights.stat().st_size if weights.is_file() else 0)


def _on_gpu(spec: EngineSpec) -> int:
    """Bytes that an engine takes of a GPU, as expected: its process cannot be asked."""
    info = models.known(spec.model)
    return info.vram_bytes if info is not None else UNMEASURED_GPU_BYTES


def default_memory() -> int:
    """Half of what the machine has."""
    return int(psutil.virtual_memory().total // 2)
