"""A real server whose engine notes what it decodes, and what is left when something has happened to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from callreel.measure.harness import ServerProcess, wait_for
from tests.faults.counting import LONGER, NAME, NOTES
from tests.server.helpers import TOY_MODEL, is_gone, served

WITHIN_S = 60.0
# The live engine of these servers has nothing to do, and is there at once.
COUNTING = ("--engine", NAME, "--model", str(TOY_MODEL), "--live-engine", "tests.engines.fake_engines:load")


@contextmanager
def counting_server(folder: Path, *, window_s: float = 0.0, **environment: str) -> Iterator[ServerProcess]:
    """Over `folder`/data, noting its windows in `folder`/windows, each `window_s` longer than it takes."""
    notes = {NOTES: str(folder / "windows"), LONGER: str(window_s)}
    with served(folder / "data", *COUNTING, **notes, **environment) as server:
        yield server


def family(server: ServerProcess) -> list[psutil.Process]:
    """The server's process and all below it."""
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


def wait_until_gone(processes: list[psutil.Process], within_s: float = 10.0) -> None:
    wait_for(lambda: all(map(is_gone, processes)), within_s, "no process is left over")


def files(data: Path) -> set[str]:
    """Everything in a data folder that belongs to a call or a job; what the server itself always has is left out."""
    found = (
        path.relative_to(data) for top in ("objects", "work", "tmp", "live", "logs") for path in (data / top).rglob("*")
    )
    return {str(path) for path in found} - {"objects/calls", "logs/jobs"}


def rows(data: Path, query: str) -> list[tuple[Any, ...]]:
    """Read the database past the server that holds it."""
    connection = sqlite3.connect(f"file:{data / 'callreel.db'}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def is_whole(data: Path) -> bool:
    """Whether SQLite finds nothing wrong with the database."""
    return rows(data, "PRAGMA integrity_check") == [("ok",)] and not rows(data, "PRAGMA foreign_key_check")


@contextmanager
def locked_database(data: Path) -> Iterator[None]:
    """Another program holds the database: nobody else can write."""
    connection = sqlite3.connect(data / "callreel.db", isolation_level=None, timeout=WITHIN_S)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def document(server: ServerProcess, call_id: str) -> list[dict[str, Any]]:
    """A transcript's segments with all their words and times, without the ids that are its own."""
    segments = server.get(f"/v1/calls/{call_id}/transcript?format=json")["segments"]
    return [{name: value for name, value in s.items() if name not in ("id", "transcript_id")} for s in segments]
