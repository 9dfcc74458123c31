"""The reference is what the code says: no setting, command or route that is not in it, and none that is no more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import click
import pytest

from callreel import settings
from callreel.cli import main
from callreel.server.app import create_app

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings.md", "cli.md", "http.md"])
def test_the_reference_is_up_to_date(generate: ModuleType, name: str) -> None:
    pages: dict[Path, str] = generate.pages()
    assert (DOCS / "reference" / name).read_text() == pages[DOCS / "reference" / name], "run python docs/generate.py"


def test_every_setting_is_documented() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    for path, field in settings.fields():
        assert f"| `{path}` | `{settings.variable(path)}` |" in page and str(field.description) in page


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "reference" / "cli.md").read_text()

    def check(path: str, command: click.Command) -> None:
        assert f"## {path}\n" in page
        section = page.split(f"## {path}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            assert all(option in section for option in parameter.opts if option.startswith("--")), parameter
        if isinstance(command, click.Group):
            for name, below in command.commands.items():
                check(f"{path} {name}", below)

    check("callreel", main)


def test_every_route_is_documented_and_says_what_it_does() -> None:
    page = (DOCS / "reference" / "http.md").read_text()
    described: dict[str, Any] = create_app(cast(Any, None)).openapi()
    routes = [(method, path) for path, methods in described["paths"].items() for method in methods]
    assert len(routes) >= 11
    for method, path in routes:
        assert f"## {method.upper()} {path}\n" in page
        assert described["paths"][path][method].get("description"), f"{method} {path} has no docstring"


def test_no_page_of_the_reference_is_written_by_hand(generate: ModuleType) -> None:
    assert {path.name for path in (DOCS / "reference").iterdir()} == {path.name for path in generate.pages()}
