"""Where jobs and streams get their engines: what was asked for is resolved, fetched if need be, and held in memory."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from callreel.engines import catalogue, shelf
from callreel.engines.base import EngineSpec
from callreel.engines.specs import final_spec, live_spec
from callreel.errors import EngineUnavailable
from callreel.server.downloads import Downloads, OnPercent
from callreel.server.pool import EnginePool, Lease, Role
from callreel.settings import Settings


class Speech:
    """The engines of this server."""

    def __init__(self, settings: Settings, pool: EnginePool) -> None:
        self._settings, self._pool, self._downloads = settings, pool, Downloads()

    async def resolve(
        self, engine: str | None, model: str | None, on_progress: OnPercent
    ) -> tuple[EngineSpec, list[str]]:
        """What to load for files, of what was asked for or of the settings, its model on this machine.

        The list says what transcripts must say of it. Raises InvalidInput, ModelMissing.
        """
        return await self._present(final_spec(self._settings, engine=engine, model=model), on_progress)

    async def resolve_live(self, on_progress: OnPercent) -> tuple[EngineSpec, list[str]]:
        """As `resolve`, for live streams."""
        return await self._present(live_spec(self._settings), on_progress)

    def lease(self, role: Role, spec: EngineSpec) -> AbstractAsyncContextManager[Lease]:
        return self._pool.lease(role, spec)

    async def _present(self, asked: EngineSpec, on_progress: OnPercent) -> tuple[EngineSpec, list[str]]:
        spec, warnings = await asyncio.to_thread(catalogue.resolve, asked)
        models = Path(spec.models_folder)
        if spec.engine != "whisper" or await asyncio.to_thread(lambda: shelf.find(spec.model, models)) is not None:
            return spec, warnings
        if not spec.download or shelf.repository_of(spec.model) is None:
            raise shelf.missing(spec.model, models)
        try:
            await self._downloads.fetch(spec, on_progress)
            return spec, warnings
        except EngineUnavailable:
            if asked.engine != catalogue.AUTO:
                raise
            return await asyncio.to_thread(catalogue.resolve, replace(asked, download=False))
