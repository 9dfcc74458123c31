"""Models on their way to this machine: each once, however many wait for it; it ends when nobody does any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from callreel.engines import shelf
from callreel.engines.base import EngineSpec
from callreel.engines.download import pull_async
from callreel.engines.fetch import Progress

log = logging.getLogger("callreel.server")

TELL_EVERY_S = 1.0

OnPercent = Callable[[float], Awaitable[None]]


@dataclass(eq=False, slots=True)
class _Download:
    task: asyncio.Task[Path]
    waiting: int = 0
    percent: float = 0.0


class Downloads:
    """The downloads of this server."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Download] = {}

    async def fetch(self, spec: EngineSpec, on_percent: OnPercent) -> Path:
        """The folder of the model, once all of it is here. Raises as `engines.download.pull_async`."""
        name = shelf.canonical(spec.model)
        found = self._under_way.get(name)
        if found is None:
            found = self._under_way[name] = self._begin(name, spec)
        found.waiting += 1
        try:
            while not found.task.done():
                await on_percent(found.percent)
                await asyncio.wait({found.task}, timeout=TELL_EVERY_S)
            return found.task.result()
        finally:
            found.waiting -= 1
            if not found.waiting:
                found.task.cancel()
                self._under_way.pop(name, None)

    def _begin(self, name: str, spec: EngineSpec) -> _Download:
        def told(progress: Progress) -> None:
            download.percent = progress.percent

        log.info("model %s is fetched", name)
        pulling = pull_async(spec.model, Path(spec.models_folder), hub=spec.hub_url, proxy=spec.proxy, on_progress=told)
        download = _Download(asyncio.create_task(pulling, name=f"download-{name}"))
        return download
