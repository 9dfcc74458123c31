"""Flags to settings, and the flags that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from callreel.settings import Loaded, Settings

F = TypeVar("F", bound=Callable[..., Any])

PATHS = {  # of flags that differ
    "live_port": "live.port",
    "live_engine": "live.engine",
    "live_model": "live.model",
    "log_level": "log.level",
    "threads": "engines.threads",
    "profile": "final.profile",
}

DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Data folder.")
PRESET = click.option("--preset", help="low-latency, throughput or balanced: models, batch and profile in one word.")
SERVER = (
    DATA_DIR,
    click.option("--host", help="Address to listen on."),
    click.option("--port", type=int, help="Port of the HTTP API; 0 takes a free one."),
    click.option("--live-port", type=int, help="Port of WhisperLive's protocol; 0 takes a free one."),
    click.option("--engine", help="Speech engine: auto, whisper, pocketsphinx, openai, or package.module:function."),
    click.option("--model", help="Model: a name of `callreel models`, a hub repository id, or a folder."),
    click.option("--live-engine", help="Speech engine of live streams, if another."),
    click.option("--live-model", help="Model of live streams, if another."),
    PRESET,
    click.option("--device", help="Where models compute: auto, cpu or cuda."),
    click.option("--compute-type", help="How models compute, in CTranslate2's words, such as int8 or float16."),
    click.option("--log-level", help="The least that is logged: debug, info, warning or error."),
)
REMOTE = (
    click.option("--url", help="The server to talk to; host and port of the settings if not given."),
    click.option("--key", help="API key to send."),
)


def server_flags(command: F) -> F:
    """Everything `serve` can be told by flags; the settings know many more things."""
    for option in reversed(SERVER):
        command = option(command)
    return command


def remote_flags(command: F) -> F:
    """For commands that talk to a running server."""
    for option in reversed(REMOTE):
        command = option(command)
    return command


def loaded(flags: Mapping[str, object]) -> Loaded:
    """The settings with the flags that were given, and where each came from. Raises InvalidInput."""
    from callreel import settings

    return settings.load(
        {PATHS.get(name, name): value for name, value in flags.items()},
        names={path: f"--{name.replace('_', '-')}" for name, path in PATHS.items() if name in flags},
    )


def chosen(flags: Mapping[str, object]) -> Settings:
    return loaded(flags).settings
