"""What the pages say can be done, can: their links, commands, settings, routes, errors and snippets are the code's."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import click
import pytest

from callreel import settings
from callreel.cli import main
from callreel.cli.bench import Bench
from callreel.engines.models import MODELS
from callreel.errors import CallreelError
from callreel.server.app import create_app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "bench" / "README.md", *(ROOT / "docs").glob("*.md")])
PRESENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # a change may name what is no more

FENCE = re.compile(r"^[ \t]*```(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?callreel ((?:[a-z-]).*)$")
ROUTE = re.compile(
    r"(?:\b(GET|POST|PATCH|PUT|DELETE) )?(?:https?://[\w.:-]+|\$[A-Z]+|(?<![\w.}/-]))(/(?:v1|audio)/[\w/{}.:*-]*[\w}])"
)
VARIABLE = re.compile(r"\bCALLREEL_[A-Z0-9_]*[A-Z0-9]\b(?![_*])")
CHECKED = (click.Choice, click.types.IntParamType, click.types.FloatParamType)  # a file need not be there
ENDS_A_COMMAND = {"|", ">", ">>", "<", "&&", "||", ";", "&", "2>", "\\"}

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
by_present_page = pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """As the usual renderers make them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {target}, and there is no such heading"


# -- commands


@dataclass(frozen=True)
class Line:
    """A command line of ours: what comes after `callreel`."""

    text: str
    words: tuple[str, ...]


def lines_of(page: Path) -> Iterator[Line]:
    shown = [line for block in blocks(page, "", "sh", "bash") for line in block.replace("\\\n", " ").splitlines()]
    for text in [*shown, *INLINE.findall(prose(page))]:
        # `*/5 * * * *  callreel watch ...` of a crontab as well
        if (found := COMMAND.match(re.sub(r"^[\d*/ ]+  ", "", text.strip()))) and not text.startswith("callreel: "):
            words = shlex.split(found[1].replace("...", ""), comments=True)
            end = next((i for i, word in enumerate(words) if word in ENDS_A_COMMAND), len(words))
            yield Line(text, tuple(words[:end]))


def check_command(words: tuple[str, ...]) -> None:
    """Raises click's errors."""
    command: click.Command = main
    context = click.Context(main, info_name="callreel")
    rest = list(words)
    while isinstance(command, click.Group):
        rest = command.whole(rest) if isinstance(command, Bench) else rest
        if not rest or rest[0].startswith("-"):
            break
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    context.resilient_parsing = False
    given, _, _ = command.make_parser(context).parse_args(rest)
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if isinstance(value, str) and isinstance(parameter.type, CHECKED):
            parameter.type.convert(value, parameter, context)


@by_present_page
def test_commands_are_understood(page: Path) -> None:
    wrong = []
    for line in lines_of(page):
        try:
            check_command(line.words)
        except click.UsageError as error:
            wrong.append(f"{line.text}: {error.format_message()}")
    assert not wrong


def test_a_command_that_is_not_is_found_out() -> None:
    for words in (("transcribe", "--formt", "srt"), ("transcripe", "a"), ("keys", "create", "x", "--role", "boss")):
        with pytest.raises(click.UsageError):
            check_command(words)


def test_make_has_its_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PRESENT:
        shown = "\n".join([*blocks(page, "", "sh"), *INLINE.findall(prose(page))])
        for named in re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE):
            assert named in targets, f"{page.name}: make {named}"


# -- settings

KNOWN = {path for path, _ in settings.fields()}
SECTIONS = {path.partition(".")[0] for path in KNOWN if "." in path}
FILES = re.compile(r".*\.(py|md|toml|json|sh|db|txt)$")


@by_present_page
def test_settings_are_known(page: Path) -> None:
    for named in INLINE.findall(prose(page)):
        section, _, rest = named.partition(" ")[0].partition("=")[0].partition(".")
        path = f"{section}.{rest}"
        if section in SECTIONS and re.fullmatch(r"[a-z_]+", rest) and not FILES.match(path):
            assert path in KNOWN, f"{page.name}: there is no setting {path}"
    variables = {settings.variable(path) for path in KNOWN} | set(settings.OWN_VARIABLES)
    for named in VARIABLE.findall(page.read_text()):
        if not named.startswith(settings.TEST_VARIABLES):
            assert named in variables, f"{page.name}: there is no variable {named}"


@by_present_page
def test_files_of_settings_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        file = tmp_path / "callreel.toml"
        file.write_text(block)
        settings.load({}, environment={"CALLREEL_CONFIG": str(file)})


@by_page
def test_snippets_are_well_formed(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "toml"):
        tomllib.loads(block)


# -- routes


@cache
def routes() -> list[tuple[list[str], set[str]]]:
    """Each path's parts, and its methods."""
    paths: dict[str, dict[str, Any]] = create_app(cast(Any, None)).openapi()["paths"]
    return [(path.strip("/").split("/"), {method.upper() for method in methods}) for path, methods in paths.items()]


def methods_of(route: str) -> set[str]:
    """Of what stands under a path like /v1/jobs/{id}/cancel or /v1/jobs/JOB_ID, or below it; empty for nothing."""
    parts = route.strip("/").split("/")

    def alike(part: str, ours: str) -> bool:
        """An id may be anything but a word that would be a route."""
        return part == ours or (ours.startswith("{") and not re.fullmatch(r"[a-z]+", part))

    found = [(path, methods) for path, methods in routes() if all(map(alike, parts, path)) and len(path) >= len(parts)]
    exact = [methods for path, methods in found if len(path) == len(parts)]
    return set().union(*(exact or [methods for _, methods in found]))


@by_present_page
def test_routes_are_served(page: Path) -> None:
    found = {(method, route): methods_of(route) for method, route in ROUTE.findall(page.read_text())}
    assert not [route for (_, route), served in found.items() if not served], "nothing is served there"
    assert not [(method, route) for (method, route), served in found.items() if method and method not in served]


def test_a_route_that_is_not_is_found_out() -> None:
    assert methods_of("/v1/calls/CALL_ID/transcript") == {"GET"}
    assert not methods_of("/v1/callz") and not methods_of("/v1/jobs/{id}/undo")
    assert ROUTE.findall(
        "a `POST /v1/jobs/{id}/cancel`, http://localhost:8125/v1/calls/CALL_ID/events?x=/api/v1/no"
    ) == [
        ("POST", "/v1/jobs/{id}/cancel"),
        ("", "/v1/calls/CALL_ID/events"),
    ]


# -- models


def test_the_models_guide_has_the_catalogue() -> None:
    guide = (ROOT / "docs" / "models.md").read_text()
    for model in MODELS:
        row = next(line for line in guide.splitlines() if line.startswith("|") and f"`{model.name}`" in line)
        download, memory = (amount(cell) for cell in row.split("|")[2:4])
        assert download == pytest.approx(model.download_bytes, rel=0.05), row
        assert memory == pytest.approx(model.ram_bytes, rel=0.05), row


def amount(cell: str) -> float:
    number, unit = cell.split()
    return float(number) * {"MB": 10**6, "GB": 10**9}[unit]


# -- errors


def kinds(root: type[CallreelError] = CallreelError) -> Iterator[type[CallreelError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def test_every_error_code_is_in_the_table() -> None:
    create_app(cast(Any, None))  # routes may have kinds of their own
    section = (ROOT / "docs" / "api.md").read_text().split("\n## Errors\n")[1].split("\n## ")[0]
    said = {(code, int(status)) for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \|", section, re.MULTILINE)}
    ours = {
        (kind.code, kind.status) for kind in kinds() if not kind.__module__.startswith(("callreel.measure", "tests"))
    }
    assert said == ours
