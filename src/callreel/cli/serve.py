"""`callreel serve`: the server."""

from __future__ import annotations

from pathlib import Path

import click

from callreel.cli.options import chosen


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Data folder.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port of the HTTP API; 0 takes a free one.")
@click.option("--live-port", type=int, help="Port of WhisperLive's protocol; 0 takes a free one.")
@click.option("--engine", help="Speech engine of files.")
@click.option("--model", help="Model of files: a size, a hub repository id, or a folder.")
@click.option("--live-engine", help="Speech engine of live streams.")
@click.option("--live-model", help="Model of live streams.")
def serve(**flags: object) -> None:
    """Serve the HTTP API and live streams until interrupted. All settings: docs/reference/settings.md."""
    from callreel.server.serve import run

    run(chosen(flags))
