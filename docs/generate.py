"""Writes docs/reference/ from the code: `python docs/generate.py`. tests/test_docs.py holds the two together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
from pydantic.fields import FieldInfo

from callreel import settings
from callreel.cli import main
from callreel.server.app import create_app
from callreel.server.routes.docs import asked_of
from callreel.settings import Settings

REFERENCE = Path(__file__).parent / "reference"
HEAD = "<!-- Written by docs/generate.py; change the code, then run it again. -->\n"
MACHINES_OWN = {"engines.threads": "number of cores"}
ORDER = (
    "Flags go over `CALLREEL_*` variables, those over `callreel.toml` (in the working directory, or where "
    "`CALLREEL_CONFIG` says), that over a preset, that over defaults. A setting `section.name` stands in "
    "`callreel.toml` as `name` under `[section]`. `callreel config` shows every value in force and where it came from."
)


def settings_page() -> str:
    """Every setting with its variable, default and description, a table a section."""
    lines = [HEAD, "# Settings", "", ORDER, ""]
    section = None
    for path, field in settings.fields():
        name = path.partition(".")[0] if "." in path else ""
        if name != section:
            section = name
            kind = Settings.model_fields[name].annotation if name else None
            lines += [f"\n## [{name}]\n", f"{inspect.getdoc(kind)}\n"] if name else []
            lines += ["| setting | variable | default | type | what it is |", "|---|---|---|---|---|"]
        default = MACHINES_OWN.get(path) or ("" if field.default in (None, ()) else f"`{field.default}`")
        lines.append(f"| `{path}` | `{settings.variable(path)}` | {default} | {_type(field)} | {field.description} |")
    return "\n".join(lines) + "\n" + _presets()


def _presets() -> str:
    lines = ["\n## Presets\n", "What `preset` sets; on a machine with a GPU the last column goes over it.\n"]
    lines += ["| preset | sets | with a GPU |", "|---|---|---|"]
    for name, chosen in settings.PRESETS.items():
        cells = [
            ", ".join(f"`{k}` {v}" for k, v in row.items()) for row in (chosen, settings.GPU_PRESETS.get(name, {}))
        ]
        lines.append(f"| `{name}` | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """The help of every command, as the terminal shows it."""
    pages = [HEAD, "# Command line", ""]
    for path, command in _commands("callreel", main):
        with click.Context(
            command, info_name=path, terminal_width=100, max_content_width=100, show_default=True
        ) as ctx:
            ctx.help_option_names = ["-h", "--help"]
            pages.append(f"## {path}\n\n```\n{command.get_help(ctx)}\n```\n")
    return "\n".join(pages)


def http_page() -> str:
    """Every route of the HTTP API, with its parameters, from its OpenAPI description."""
    described = create_app(cast(Any, None)).openapi()
    pages = [HEAD, "# HTTP API", "", "A key goes as `Authorization: Bearer KEY`; on loopback none is needed. Errors: "]
    pages[-1] += '`{"error": {"code", "message", "hint", "detail"}}`. The running server shows all of it at `/docs`.\n'
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            pages.append(f"## {method.upper()} {path}\n")
            if said := route.get("description"):
                pages.append(f"{said}\n")
            rows = [_row(*asked) for asked in asked_of(route, described)]
            if rows:
                pages += ["| name | in | type | what it is |", "|---|---|---|---|", *rows, ""]
    return "\n".join(pages)


def pages() -> dict[Path, str]:
    return {
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "http.md": http_page(),
    }


def _type(field: FieldInfo) -> str:
    kind = field.annotation.__name__ if type(field.annotation) is type else str(field.annotation)
    limits = [f"{name} {value}" for rule in field.metadata for name, value in _limits(rule)]
    return ", ".join([kind.replace("typing.", "").replace("pathlib.", "").replace("|", "or"), *limits])


def _limits(rule: object) -> Iterator[tuple[str, object]]:
    for name, word in (("ge", "at least"), ("le", "at most")):
        if (value := getattr(rule, name, None)) is not None:
            yield word, value


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(f"{path} {name}", command.commands[name])


def _row(name: str, where: str, schema: dict[str, Any], required: bool) -> str:
    kinds = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    shown = " or ".join(" or ".join(f"`{v}`" for v in s["enum"]) if "enum" in s else s.get("type", "") for s in kinds)
    default = schema.get("default")
    notes = [schema.get("description", ""), "required" if required else "", f"default `{default}`" if default else ""]
    return f"| `{name}` | {where} | {shown} | {'; '.join(note for note in notes if note)} |"


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for page, text in pages().items():
        page.write_text(text)
