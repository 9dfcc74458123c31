"""The house plan holds: imports point down, without circles, and each room keeps to itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = "callreel"
FLOORS = (
    "cli",
    "measure",
    "client",
    "server",
    "tasks",
    "analysis",
    "replay",
    "recording",
    "live",
    "offline",
    "wire",
    "transcripts",
    "calls",
    "jobs",
    "engines",
    "media",
    "audio",
    "accounts",
    "storage",
)
GROUND = (
    "text",
    "net",
    "settings",
    "errors",
    "metrics",
    "clock",
    "logs",
)  # any of them may stand on another, not in a circle
DOOR = ("__main__", "")  # `python -m callreel`, and the package itself, which has the version
MOST_LINES = 500
ALEMBICS = "versions"  # scripts that Alembic loads, no package
FORBIDDEN = {"wire": ("socket", "asyncio", "websockets"), "engines": ("callreel.jobs", "callreel.calls")}


def modules(source: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted((source / PACKAGE).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(module: str, path: Path) -> set[str]:
    """Everything a module imports, absolute, wherever in it; `from a import b` counts as both a and a.b."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return found


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def floor(name: str) -> int:
    """0 is the top."""
    if name in DOOR:
        return -1
    return len(FLOORS) if name in GROUND else FLOORS.index(name)


def violations(source: Path) -> list[str]:
    """What breaks the house plan, a line each."""
    known = dict(modules(source))
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        here = room(module)
        if here not in (*FLOORS, *GROUND, *DOOR):
            found.append(f"{module}: {here} is not in the house plan")
            continue
        asked = imports(module, path)
        graph[module] = {name for name in asked if name in known and name != module}
        for other in sorted(graph[module]):
            there = room(other)
            if there in ("", here) or there not in (*FLOORS, *GROUND):
                continue
            if floor(there) <= floor(here) and not (here in GROUND and there in GROUND):
                found.append(f"{module} imports {other}, which is above it")
        for name in FORBIDDEN.get(here, ()):
            if any(other == name or other.startswith(f"{name}.") for other in asked):
                found.append(f"{module} imports {name}, which {here} may not know")
        lines = len(path.read_text().splitlines())
        if lines >= MOST_LINES:
            found.append(f"{path.name} has {lines} lines")
        if path.name == "__init__.py":
            said = ast.get_docstring(ast.parse(path.read_text())) or ""
            if not said.split("\n\n")[0].rstrip().endswith("."):
                found.append(f"{module} does not say in a sentence what it is")
    for folder in {path.parent for path in known.values()}:
        if folder.name != ALEMBICS and not (folder / "__init__.py").exists():
            found.append(f"{folder.name} has no __init__.py")
    for module, others in graph.items():  # a package that a module lies in is no circle with it
        graph[module] = {other for other in others if not module.startswith(f"{other}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("a circle: " + " -> ".join(error.args[1]))
    return found


def test_the_house_plan_holds() -> None:
    assert violations(SOURCE) == []


def test_all_of_the_package_was_looked_at() -> None:
    looked_at = {module for module, _ in modules(SOURCE)}
    assert {"callreel", "callreel.cli", "callreel.server.routes.jobs", "callreel.live.session"} <= looked_at
    # Imports inside functions are seen as well.
    assert "callreel.server.serve" in imports("callreel.cli.serve", SOURCE / "callreel/cli/serve.py")


DOC = '"""A room."""\n'


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"audio/a.py": "from callreel.live import x"}, "callreel.audio.a imports callreel.live"),
        ({"audio/a.py": "def f():\n    import callreel.cli"}, "imports callreel.cli, which is above it"),
        ({"audio/a.py": "from ..live import x"}, "imports callreel.live, which is above it"),
        ({"clock.py": "import callreel.audio"}, "callreel.clock imports callreel.audio"),
        ({"audio/a.py": "from callreel.audio import b", "audio/b.py": "from . import a"}, "a circle: "),
        ({"clock.py": "import callreel.errors", "errors.py": "import callreel.clock"}, "a circle: "),
        ({"wire/a.py": "def f():\n    import asyncio"}, "imports asyncio"),
        ({"wire/a.py": "from socket import socket"}, "imports socket"),
        ({"engines/a.py": "from callreel.jobs import store"}, "imports callreel.jobs"),
        ({"attic/__init__.py": DOC}, "attic is not in the house plan"),
        ({"audio/a.py": "x = 1\n" * 500}, "a.py has 500 lines"),
        ({"audio/__init__.py": ""}, "callreel.audio does not say"),
        ({"audio/deep/a.py": "x = 1"}, "deep has no __init__.py"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    house = {f"{name}/__init__.py": DOC for name in ("audio", "cli", "engines", "jobs", "live", "wire")}
    house |= {"__init__.py": DOC, "jobs/store.py": "", "errors.py": "", "clock.py": "import callreel.errors"}
    for name, text in (house | {"live/session.py": "from callreel.audio import a"}).items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert violations(tmp_path) == []
    for name, text in files.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert any(complaint in violation for violation in violations(tmp_path)), violations(tmp_path)
