"""The command line: one file a command, put together here."""

from __future__ import annotations

import os

import click

from callreel import __version__
from callreel.cli.bench import bench
from callreel.cli.config import config
from callreel.cli.demo import demo
from callreel.cli.doctor import doctor
from callreel.cli.keys import keys
from callreel.cli.models import models
from callreel.cli.serve import serve
from callreel.cli.shell import Shell
from callreel.cli.transcribe import transcribe
from callreel.cli.watch import watch

# Before numpy is there: its BLAS threads wait for each other and for the engine's, which are the ones that help.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@click.group(cls=Shell, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def main() -> None:
    """Callreel records calls, rewinds them, and writes down every word."""


for command in (bench, config, demo, doctor, keys, models, serve, transcribe, watch):
    main.add_command(command)
