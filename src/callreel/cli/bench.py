"""`callreel bench`: what measures Callreel. Each command writes its result, with the machine, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

AUDIO, MODEL = Path("tests/data/audio"), Path("tests/data/whisper-toy")  # in a checkout
SIZES = click.Choice(["tiny", "base", "small"])


@click.group()
def bench() -> None:
    """Measure: the live policy, live work beside batch work, crashes, the event loop."""


def _measures(command: Callable[..., tuple[dict[str, Any], str]]) -> Callable[..., None]:
    """The options all measurements have; of (result, report) the one goes to --out, the other is shown."""

    @click.option(
        "--audio",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=AUDIO if AUDIO.is_dir() else None,
        required=not AUDIO.is_dir(),
        help="Folder of recordings, with references.json.",
    )
    @click.option(
        "--model",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=MODEL if MODEL.is_dir() else None,
        required=not MODEL.is_dir(),
        help="Folder of a Whisper model; synthetic weights borrow its tokenizer.",
    )
    @click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here, as JSON.")
    @wraps(command)
    def measured(*, out: Path | None, **options: Any) -> None:
        from callreel.measure.harness import machine

        result, report = command(**options)
        click.echo(report)
        if out is not None:
            facts = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": ["callreel", *sys.argv[1:]],
                "machine": machine(),
            }
            out.write_text(json.dumps(facts | result | facts, indent=1) + "\n")

    return measured


@bench.command("live-policy")
@_measures
def live_policy(audio: Path, model: Path) -> tuple[dict[str, Any], str]:
    """Live against offline text, by window floor and cut rule, on a virtual clock."""
    from callreel.measure import live_policy

    result = live_policy.run(audio, model)
    return result, live_policy.report(result)


@bench.command("batch-beside-live")
@_measures
@click.option("--live-size", type=SIZES, default="tiny", help="Shape of the live engine's weights.")
@click.option("--batch-size", type=SIZES, default="small", help="Shape of the job's weights.")
@click.option("--streams", type=click.IntRange(1), default=4, help="Live streams.")
@click.option("--pairs", type=click.IntRange(1), default=3, help="Stretches without and with the job.")
@click.option("--seconds", "stretch_s", type=click.FloatRange(6), default=60.0, help="Length of a stretch.")
@click.option("--job-seconds", "job_s", type=click.FloatRange(60), help="Length of the job's recording.")
def batch_beside_live(audio: Path, model: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """How much later finals come while a job runs, and how fast the job is."""
    from callreel.measure import beside

    result = beside.run(audio, model, **options)
    return result, beside.report(result)


@bench.command("event-loop")
@_measures
@click.option("--live-size", type=SIZES, default="tiny", help="Shape of the live engine's weights.")
@click.option("--streams", type=click.IntRange(1), default=16, help="Live streams.")
@click.option("--seconds", "stretch_s", type=click.FloatRange(6), default=60.0, help="Length of the measurement.")
def event_loop(audio: Path, model: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """Lag, CPU time and memory of the server under paced streams."""
    from callreel.measure import event_loop

    result = event_loop.run(audio, model, **options)
    return result, event_loop.report(result)


@bench.command()
@_measures
def crash(audio: Path, model: Path) -> tuple[dict[str, Any], str]:
    """kill -9 of each process under full work: what is lost, what is said twice, what is left over."""
    from callreel.measure import crash

    result = crash.run(audio, model)
    return result, crash.report(result)
