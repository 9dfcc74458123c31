"""Models from the hub: fetched with progress by a process of its own (`fetch.py`), for command line and server.

What was fetched is kept when a download ends before its time, and the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from callreel.engines import frames, shelf
from callreel.engines.fetch import HOW_ELSE, Line, Order, Progress
from callreel.engines.hub import hub_url, reachable
from callreel.errors import EngineUnavailable, ModelMissing


def pull(
    model: str,
    models_folder: Path,
    *,
    hub: str | None = None,
    proxy: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Fetch a model by name or hub repository id; its folder. One that is here is not fetched again.

    Raises InvalidInput for an unknown name, ModelMissing where the hub has it not or does not let us in,
    EngineUnavailable where the network fails (what was fetched is kept for the next time), within seconds where the
    hub does not answer at all, OutOfSpace when the disk is full.
    """
    here = shelf.find(model, models_folder)
    if here is not None:
        return here.folder
    command, environment, target = _child(model, models_folder, hub, proxy)
    error: dict[str, Any] | None = None
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                line = msgspec.json.decode(text, type=Line)
                error = line.error or error
                if line.progress:
                    on_progress(line.progress)
            process.wait()  # closing its standard input before would end it on its last steps
        except BaseException:
            process.kill()
            raise
    return _outcome(target, error, process.returncode)


async def pull_async(
    model: str,
    models_folder: Path,
    *,
    hub: str | None = None,
    proxy: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """The same for asyncio; to cancel it ends the download, and what was fetched is kept."""
    here = await asyncio.to_thread(shelf.find, model, models_folder)
    if here is not None:
        return here.folder
    command, environment, target = await asyncio.to_thread(_child, model, models_folder, hub, proxy)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    error: dict[str, Any] | None = None
    try:
        async for text in process.stdout:
            line = msgspec.json.decode(text, type=Line)
            error = line.error or error
            if line.progress:
                on_progress(line.progress)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stdin is not None:
            process.stdin.close()
    return _outcome(target, error, code)


def _child(
    model: str, models_folder: Path, hub: str | None, proxy: str | None
) -> tuple[list[str], dict[str, str], Path]:
    repository = shelf.repository_of(model)
    if repository is None:
        raise ModelMissing(f"There is no folder {model}", hint="Give a folder that is there, or a model's name")
    if not reachable(hub, proxy):  # the hub's client would wait for minutes
        raise EngineUnavailable(f"{hub_url(hub)} cannot be reached", hint=HOW_ELSE)
    target = shelf.home(model, models_folder)
    order = Order(repository, str(target), hub_url(hub))
    command = [sys.executable, "-m", "callreel.engines.fetch", msgspec.json.encode(order).decode()]
    environment = {**os.environ, "HF_ENDPOINT": order.hub_url, "HF_HUB_DISABLE_TELEMETRY": "1"}
    if proxy:
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
    return command, environment, target


def _outcome(target: Path, error: dict[str, Any] | None, code: int) -> Path:
    if error is not None:
        raise frames.error_from(error)
    if code != 0:
        raise EngineUnavailable(f"The download of {target.name} ended with {code}", hint="Start it again: it goes on")
    return target
