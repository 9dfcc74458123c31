"""Flags to settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import pydantic

from callreel.errors import InvalidInput
from callreel.settings import Settings

SETTINGS_HINT = "docs/reference/settings.md says what each setting may hold"


def chosen(flags: Mapping[str, object]) -> Settings:
    """The settings with the flags that were given. Raises InvalidInput with the setting's name."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"callreel.toml cannot be read: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"The setting {name!r} is not right: {first['msg']}", hint=SETTINGS_HINT) from error
