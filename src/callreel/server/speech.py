"""Where jobs and streams get their engines: what was asked for is resolved, fetched if need be, and held in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from callreel.engines import catalogue
from callreel.engines.base import EngineSpec
from callreel.engines.specs import final_spec, live_spec
from callreel.server.pool import EnginePool, Lease, Role
from callreel.settings import Settings

OnPercent = Callable[[float], Awaitable[None]]


class Speech:
    """The engines of this server."""

    def __init__(self, settings: Settings, pool: EnginePool) -> None:
        self._settings, self._pool = settings, pool

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
        return await asyncio.to_thread(catalogue.resolve, asked)
