"""Flags to settings."""

from __future__ import annotations

from collections.abc import Mapping

from callreel import settings
from callreel.settings import Loaded, Settings

PATHS = {"live_port": "live.port", "live_engine": "live.engine", "live_model": "live.model"}  # of flags that differ


def loaded(flags: Mapping[str, object]) -> Loaded:
    """The settings with the flags that were given, and where each came from. Raises InvalidInput."""
    return settings.load({PATHS.get(name, name): value for name, value in flags.items()})


def chosen(flags: Mapping[str, object]) -> Settings:
    return loaded(flags).settings
