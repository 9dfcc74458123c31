"""`callreel config`: every setting in force, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from callreel.cli.options import loaded, server_flags
from callreel.cli.tables import table

MASK = "********"


@click.command()
@server_flags
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "toml", "json"]),
    default="table",
    help="toml is what callreel.toml may hold, secrets left out.",
)
def config(format_: str, **flags: object) -> None:
    """Show every setting in force and where it came from; `serve` with the same flags uses the same."""
    rows = list(_rows(flags))
    match format_:
        case "json":
            said = {path: {"value": value, "from": origin} for path, value, origin, _ in rows}
            click.echo(json.dumps(said, indent=2, ensure_ascii=False))
        case "toml":
            click.echo(_toml(rows), nl=False)
        case _:
            shown = [(path, _plain(value), origin) for path, value, origin, _ in rows]
            cells = [
                tuple(click.style(cell, bold=origin != "default") for cell in (path, value, origin))
                for path, value, origin in shown
            ]
            click.echo(table(cells, head=("setting", "value", "from")))


def _rows(flags: dict[str, object]) -> Iterator[tuple[str, Any, str, bool]]:
    """(path, value as JSON has it, origin, secret) of every setting; a secret that is set is masked."""
    from callreel import settings

    found = loaded(flags)
    for path, field in settings.fields():
        value = settings.value_of(found.settings, path)
        secret = isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))
        if secret and value is not None:
            value = MASK
        elif isinstance(value, Path):
            value = str(value)
        elif isinstance(value, tuple):
            value = list(value)
        yield path, value, found.origins[path], secret


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case dict():
            return ", ".join(f"{name}={number}" for name, number in value.items())
        case list():
            return ", ".join(value)
        case _:
            return json.dumps(value)


def _toml(rows: list[tuple[str, Any, str, bool]]) -> str:
    """TOML that `settings.load` reads back to the same settings; what is unset or secret stands in comments."""
    lines: list[str] = []
    section = ""
    for path, value, origin, secret in rows:
        here, _, name = path.rpartition(".")
        if here != section:
            section = here
            lines.append(f"\n[{section}]")
        if value is None or secret:
            lines.append(f"# {name} is not set" if value is None else f"# {name} is a secret, set by {origin}")
        else:
            lines.append(f"{name} = {_toml_value(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {number}" for name, number in value.items()) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)  # strings, numbers, booleans and lists are written alike in both
