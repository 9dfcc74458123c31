"""How commands end: one line and a hint, 1 or 2, no traceback; quick help, and colours only for terminals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from callreel import __version__
from callreel.cli import main
from callreel.cli.shell import Shell
from callreel.errors import InvalidInput
from tests.cli.running import callreel, refused

HEAVY = ("numpy", "av", "ctranslate2", "fastapi", "faster_whisper", "httpx", "psutil", "pydantic", "sqlalchemy")


def test_help_names_every_command() -> None:
    shown = callreel("--help")
    assert shown.returncode == 0 and main.commands
    assert all(f"  {command} " in shown.stdout for command in main.commands)
    assert callreel("--version").stdout.split()[-1] == __version__


def test_help_and_the_package_import_nothing_heavy() -> None:
    script = f"import sys, callreel, callreel.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_a_mistake_of_use_is_a_line_and_a_hint() -> None:
    what, hint = refused(callreel("transcribe", "/nowhere/at/all.wav"), code=2)
    assert what.startswith("callreel: ") and "/nowhere/at/all.wav" in what
    assert hint == "  callreel transcribe --help"
    what, _ = refused(callreel("trnascribe"), code=2)
    assert "trnascribe" in what


@click.group(cls=Shell)
def shell() -> None:
    """A shell of commands that fail."""


@shell.command()
def known() -> None:
    raise InvalidInput("This cannot be.", hint="Do that")


@shell.command()
def system() -> None:
    Path("/nowhere/at/all").read_text()


@shell.command()
def bug() -> None:
    raise ZeroDivisionError("by zero")


@shell.command()
def interrupted() -> None:
    raise KeyboardInterrupt


@shell.command()
def coloured() -> None:
    click.secho("green", fg="green")


@pytest.mark.parametrize(
    ("command", "code", "lines"),
    [
        ("known", 1, ["callreel: This cannot be.", "  Do that"]),
        ("system", 1, ["callreel: No such file or directory: /nowhere/at/all"]),
        (
            "bug",
            1,
            [
                "callreel: Something went wrong inside Callreel: ZeroDivisionError: by zero",
                "  CALLREEL_LOG_LEVEL=debug shows where; please report it",
            ],
        ),
        ("interrupted", 130, [""]),
    ],
)
def test_every_failure_ends_alike(command: str, code: int, lines: list[str]) -> None:
    ended = CliRunner().invoke(shell, [command])
    assert (ended.exit_code, ended.stderr.splitlines(), ended.stdout) == (code, lines, "")


def test_at_debug_a_bug_shows_where_it_is() -> None:
    ended = CliRunner().invoke(shell, ["bug"], env={"CALLREEL_LOG_LEVEL": "debug"})
    assert isinstance(ended.exception, ZeroDivisionError)


def test_colours_are_for_terminals_that_want_them() -> None:
    assert CliRunner().invoke(shell, ["coloured"]).stdout == "green\n"  # no terminal
    assert CliRunner().invoke(shell, ["coloured"], color=True).stdout == "\x1b[32mgreen\x1b[0m\n"
    assert CliRunner().invoke(shell, ["coloured"], color=True, env={"NO_COLOR": "1"}).stdout == "green\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    cut = f"{sys.executable} -m callreel config | head -1"
    ended = subprocess.run(cut, shell=True, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("setting") and ended.stderr == ""
