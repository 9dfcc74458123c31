"""`callreel doctor`: can Callreel run on this machine, and how well?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from callreel.cli.options import chosen, server_flags

if TYPE_CHECKING:
    from callreel.cli.machine import Finding, Status
    from callreel.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@server_flags
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool, **flags: object) -> None:
    """Look at cores, memory, disk, GPU, models, ports and packages, and say what to do. Exit code 1: it cannot run."""
    from callreel.cli.tables import table

    findings = list(_look(chosen(flags)))
    failed = any(finding.status == "fail" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        lines = table([(click.style(f.status, fg=COLOURS[f.status]), f.name, f.found) for f in findings]).splitlines()
        for finding, line in zip(findings, lines, strict=True):
            click.echo(line)
            if finding.advice:
                click.echo(f"      {finding.advice}")
    sys.exit(1 if failed else 0)


def _look(settings: Settings) -> Iterator[Finding]:
    from callreel.cli import machine

    yield from machine.python()
    yield from machine.cores()
    yield from machine.memory()
    yield from machine.disk(settings.data_dir)
    yield from machine.gpu(settings.device)
    yield from _models(settings)
    yield from machine.ports(settings.host, settings.port, settings.live.port)
    yield from machine.programs()
    yield from machine.clock()


def _models(settings: Settings) -> Iterator[Finding]:
    """Is what files and live streams are to be transcribed with on this machine, or can it be fetched?"""
    from callreel.cli.machine import Finding
    from callreel.engines import catalogue, shelf
    from callreel.engines.specs import final_spec, live_spec
    from callreel.errors import CallreelError

    files, live = final_spec(settings), live_spec(settings)
    for name, spec in [("model", files)] if files == live else [("model of files", files), ("live model", live)]:
        try:
            found, warnings = catalogue.resolve(spec)
            missing = found.engine == "whisper" and not shelf.find(found.model, settings.models_folder)
        except CallreelError as error:
            yield Finding(name, "fail", str(error), error.hint)
            continue
        said = f"{found.engine} {found.model}"
        if found.engine == "openai" and not found.url:
            yield Finding(name, "fail", f"{said}, but nobody says where", "Set openai.url (CALLREEL_OPENAI_URL)")
        elif missing:
            status: Status = "warn" if found.download else "fail"
            yield Finding(name, status, f"{said}, not here yet", f"callreel models pull {found.model}")
        elif warnings:
            yield Finding(name, "warn", said, warnings[0])
        else:
            yield Finding(name, "ok", said)
