"""The command line: one file a command, put together here."""

from __future__ import annotations

import os
import sys

import click

from callreel import __version__
from callreel.cli.bench import bench
from callreel.cli.serve import serve
from callreel.cli.transcribe import transcribe
from callreel.errors import CallreelError

# Before numpy is there: its BLAS threads wait for each other and for the engine's, which are the ones that help.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class _Group(click.Group):
    """Errors that we know end in one line and its hint; a traceback is for those that we do not."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CallreelError as error:
            click.echo(f"callreel: {error}", err=True)
            if error.hint:
                click.echo(f"  {error.hint}", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def main() -> None:
    """Callreel records calls, rewinds them, and writes down every word."""


for command in (serve, transcribe, bench):
    main.add_command(command)
