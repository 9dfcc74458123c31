"""From settings to what is to be loaded: one place, whoever starts an engine."""

from __future__ import annotations

from callreel.engines import gpu
from callreel.engines.base import EngineSpec
from callreel.settings import Settings


def live_spec(settings: Settings) -> EngineSpec:
    """The engine of live streams."""
    return _spec(settings, settings.live.engine or settings.engine, settings.live.model or settings.model)


def final_spec(settings: Settings, *, engine: str | None = None, model: str | None = None) -> EngineSpec:
    """The engine of files; `engine` and `model` are what a request or a flag asks for instead."""
    return _spec(
        settings, engine or settings.final.engine or settings.engine, model or settings.final.model or settings.model
    )


def _on_gpu(settings: Settings) -> bool:
    return settings.device == "cuda" or (settings.device == "auto" and gpu.first() is not None)


def _spec(settings: Settings, engine: str, model: str) -> EngineSpec:
    return EngineSpec(
        engine=engine,
        model=model,
        models_folder=str(settings.models_folder),
        threads=settings.gpu.max_concurrent if _on_gpu(settings) else settings.engines.threads,
        min_window_s=settings.engines.min_window_s,
        download=settings.models.download,
        device=settings.device,
        compute_type=settings.compute_type,
        hub_url=settings.models.hub_url,
        proxy=settings.models.proxy,
        url=settings.openai.url,
        key=settings.openai.key,
        park_after_s=settings.gpu.park_after_s,
    )
