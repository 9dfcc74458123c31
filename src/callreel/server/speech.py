"""Where jobs and streams get their engines: what was asked for is resolved, fetched if need be, and held in memory."""

from __future__ import annotations

import asyncio
import difflib
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from callreel.engines import catalogue, shelf
from callreel.engines.base import EngineSpec
from callreel.engines.specs import final_spec, live_spec
from callreel.errors import EngineUnavailable, InvalidInput
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

    async def check(self, engine: str | None, model: str | None) -> None:
        """Raises InvalidInput, naming the nearest, for an engine or a model that a request cannot have.

        A stranger names no code and no path: engines of the catalogue, models by name or hub id, or what is set here.
        """
        settings = self._settings
        known = [catalogue.AUTO, *catalogue.ENGINES]
        if engine is not None and engine not in (*known, settings.engine, settings.final.engine):
            raise InvalidInput(
                f"There is no engine {engine[:40]!r}{_meant(engine, known)}",
                hint=f"Known: {', '.join(known)}",
                field="engine",
            )
        asked = final_spec(settings, engine=engine, model=model)
        if model in (None, settings.model, settings.final.model) or asked.engine not in (catalogue.AUTO, "whisper"):
            return
        assert model is not None
        if shelf.is_folder(model):
            raise InvalidInput(
                f"There is no model {model[:40]!r}", hint="A request names a model, no path", field="model"
            )
        try:
            await asyncio.to_thread(shelf.find, model, settings.models_folder)
        except InvalidInput as error:
            error.detail["field"] = "model"
            raise

    def models(self) -> dict[str, int]:
        """When each named model came onto this machine, seconds since the epoch. It looks at the disk."""
        found = shelf.present(self._settings.models_folder)
        return {model.name: int(model.folder.stat().st_mtime) for model in found}

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


def _meant(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
