"""How a command ends: 0, 1 for what went wrong, 2 for a mistake of use, each in one line and its hint."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from callreel.errors import CallreelError, Unauthorized

NAME = "callreel"  # however it was started
FAILED, MISUSED, INTERRUPTED = 1, 2, 130
TRACEBACKS = "CALLREEL_LOG_LEVEL"  # at debug, errors that we do not know show where they come from
KEY_HINT = "Give one with --key or CALLREEL_KEY"


class Shell(click.Group):
    """The group of all commands. Colours keep to https://no-color.org and are left out of pipes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if os.environ.get("NO_COLOR"):
            extra["color"] = False
        if not standalone_mode:
            return super().main(args, prog_name or NAME, complete_var, False, **extra)
        try:
            sys.exit(super().main(args, prog_name or NAME, complete_var, False, **extra))
        except click.UsageError as error:
            _end(MISUSED, error.format_message(), f"{error.ctx.command_path} --help" if error.ctx else "")
        except click.ClickException as error:
            _end(FAILED, error.format_message())
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except CallreelError as error:
            _end(FAILED, str(error), KEY_HINT if isinstance(error, Unauthorized) else error.hint)
        except OSError as error:
            _end(FAILED, f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        except Exception as error:
            if os.environ.get(TRACEBACKS) == "debug":
                raise
            said = f"Something went wrong inside Callreel: {type(error).__name__}: {error}"
            _end(FAILED, said, f"{TRACEBACKS}=debug shows where; please report it")


def _end(code: int, what: str, hint: str = "") -> NoReturn:
    click.echo(f"callreel: {what}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    sys.exit(code)
