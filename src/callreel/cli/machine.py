"""What `callreel doctor` looks at on this machine: each check is a function that answers one or more findings."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal

from callreel.cli.tables import size

MINIMUM_CORES, RECOMMENDED_CORES = 4, 8
MINIMUM_MEMORY, RECOMMENDED_MEMORY = 8 * 10**9, 16 * 10**9  # bytes
MINIMUM_DISK, RECOMMENDED_DISK = 50 * 10**9, 100 * 10**9  # bytes free
LEAST_DISK = 200 * 10**6  # bytes; below it even the database may find no room
LEAST_MEMORY = 10**9  # bytes; below it the smallest model and the server do not fit
OLDEST_PYTHON = (3, 11)
BUILT = 1_735_689_600.0  # 2025-01-01: a clock before it is wrong
ASK_WITHIN_S = 2.0
TOOL_WITHIN_S = 10.0
CGROUP = Path("/sys/fs/cgroup")
OPTIONAL = {  # program -> Debian's package and what for
    "ffmpeg": ("ffmpeg", "recordings; one comes with Callreel's Python packages as well"),
    "chromium": ("chromium", "recording web pages"),
    "Xvfb": ("xvfb", "recording web pages"),
    "pulseaudio": ("pulseaudio", "recording web pages"),
}

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` says what to do, and is empty where nothing is to be done."""

    name: str
    status: Status
    found: str
    advice: str = ""


def python() -> Iterator[Finding]:
    new_enough = sys.version_info >= OLDEST_PYTHON
    yield Finding(
        "python",
        "ok" if new_enough else "fail",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if new_enough else "Install Python 3.11 or newer",
    )
    has_search = any("FTS5" in option for (option,) in sqlite3.connect(":memory:").execute("PRAGMA compile_options"))
    yield Finding(
        "sqlite",
        "ok" if has_search else "fail",
        sqlite3.sqlite_version + ("" if has_search else ", without full-text search"),
        "" if has_search else "Use a Python whose SQLite has FTS5, such as Debian's or python.org's",
    )


def cores() -> Iterator[Finding]:
    """Cores that this process may use, a container's quota counted."""
    usable = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        usable = min(usable, int(quota) / int(period))
    yield _against("cores", usable, f"{usable:g}", MINIMUM_CORES, RECOMMENDED_CORES, "cores", 0)


def memory() -> Iterator[Finding]:
    """Memory of the machine, or of the container where it is less."""
    import psutil

    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        total = min(total, int((CGROUP / "memory.max").read_text()))
    yield _against("memory", total, size(total), MINIMUM_MEMORY, RECOMMENDED_MEMORY, "of memory", LEAST_MEMORY)


def disk(data_dir: Path) -> Iterator[Finding]:
    """Room on the volume of the data folder, and whether the folder can be written."""
    here = data_dir.absolute()
    existing = next(folder for folder in (here, *here.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        advice = "Choose a folder that you may write to with --data-dir or CALLREEL_DATA_DIR"
        yield Finding("data folder", "fail", f"{existing} cannot be written", advice)
    else:
        yield Finding("data folder", "ok", f"{here}{'' if existing == here else ', made by the first start'}")
    free = shutil.disk_usage(existing).free
    yield _against("disk", free, f"{size(free)} free", MINIMUM_DISK, RECOMMENDED_DISK, "free", LEAST_DISK)


def gpu(device: str) -> Iterator[Finding]:
    """Cards that the driver knows, and whether the speech engine can use them."""
    from ctranslate2 import get_cuda_device_count

    cards, usable = _nvidia_cards(), int(get_cuda_device_count())
    names = ", ".join(cards) or "none"
    if usable:
        yield Finding("gpu", "ok", f"{names}; {usable} usable")
    elif device == "cuda":
        yield Finding(
            "gpu", "fail", f"{names}; `device` is cuda", "Set device to auto or cpu, or mend the GPU's driver"
        )
    elif cards:
        advice = "Install the CUDA 12 libraries cuBLAS and cuDNN 9, then models compute on it by themselves"
        yield Finding("gpu", "warn", f"{names}, which the speech engine cannot use", advice)
    else:
        yield Finding("gpu", "ok", "none; models compute on the CPU")


def ports(host: str, port: int, live_port: int) -> Iterator[Finding]:
    """Are the ports free, or is it our own server that holds them?"""
    ours = _server_version(host, port)
    for name, number, flag in (("port", port, "--port"), ("live port", live_port, "--live-port")):
        if number == 0 or _is_free(host, number):
            yield Finding(name, "ok", f"{number or 'any'} is free")
        elif ours is not None:
            yield Finding(name, "ok", f"{number} is taken; a Callreel server ({ours}) runs on port {port}")
        else:
            yield Finding(name, "fail", f"{number} is taken by another program", f"Choose another with {flag}")


def programs() -> Iterator[Finding]:
    """System packages that nothing needs but what is named."""
    for program, (package, purpose) in OPTIONAL.items():
        path = shutil.which(program)
        missing = f"not here; only for {purpose}"
        yield Finding(program.lower(), "ok", path or missing, "" if path else f"sudo apt-get install {package}")


def clock() -> Iterator[Finding]:
    """Is it set, and kept right by the network? Call times come from it."""
    if time.time() < BUILT:
        yield Finding("clock", "fail", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "Set the machine's clock")
        return
    kept = _output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if kept == "no":
        yield Finding("clock", "warn", f"{now}, not kept by the network", "sudo timedatectl set-ntp true")
    else:
        yield Finding("clock", "ok", now + (", kept by the network" if kept == "yes" else ""))


def _against(
    name: str, value: float, shown: str, minimum: float, recommended: float, what: str, least: float
) -> Finding:
    """`least` is what Callreel cannot run without."""
    if value < least:
        return Finding(name, "fail", shown, f"Callreel needs at least {_said(least, what)}")
    if value < minimum:
        advice = f"The minimum is {_said(minimum, what)}, {_said(recommended, what)} are better: take small models"
        return Finding(name, "warn", shown, advice)
    return Finding(name, "ok", shown, "" if value >= recommended else f"{_said(recommended, what)} are better")


def _said(number: float, what: str) -> str:
    return f"{number:g} {what}" if number < 1000 else f"{size(number)} {what}"


def _nvidia_cards() -> list[str]:
    said = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return [line.strip() for line in said.splitlines() if line.strip()]


def _output(*command: str) -> str:
    """What a tool says, nothing where it is missing or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_WITHIN_S, check=True)
        return ended.stdout.strip()
    return ""


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        return False
    return True


def _server_version(host: str, port: int) -> str | None:
    """The version of the Callreel server that answers there, None where none does."""
    address = f"[{host}]" if ":" in host else host
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/version", timeout=ASK_WITHIN_S) as answer:
            return str(json.load(answer)["version"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):  # silence, another protocol, another program
        return None
