"""`callreel bench`: what measures Callreel. Each command writes its result, with the machine, as JSON."""

from __future__ import annotations

import click


@click.group()
def bench() -> None:
    """Measure: the live policy, live work beside batch work, crashes, the event loop."""
