"""`callreel serve`: the server."""

from __future__ import annotations

import click

from callreel.cli.options import chosen, server_flags


@click.command()
@server_flags
def serve(**flags: object) -> None:
    """Serve the HTTP API and live streams until interrupted. All settings: docs/reference/settings.md."""
    from callreel.server.serve import run

    run(chosen(flags))
