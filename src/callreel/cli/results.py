"""What a measurement gives back: shown to people, kept as JSON with the machine it was taken on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

AUDIO, MODEL = Path("tests/data/audio"), Path("tests/data/whisper-toy")  # in a checkout
Result: TypeAlias = tuple[dict[str, Any], str]

OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here, as JSON with the machine."
)


if TYPE_CHECKING:
    Kind: TypeAlias = click.ParamType[Any]
else:
    Kind = click.ParamType  # generic only in later versions


class Listed(Kind):
    """One or more values of a kind, with commas between them."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.name = f"{kind.name},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        found = tuple(self._kind.convert(part.strip(), param, ctx) for part in str(value).split(",") if part.strip())
        return found or self.fail("nothing is named", param, ctx)


def write_result(result: dict[str, Any], out: Path) -> None:
    """`result` as JSON, in a folder that is made where it is missing."""
    from callreel.measure.machine import machine

    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["callreel", *sys.argv[1:]],
        "machine": machine(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts | result | facts, indent=1) + "\n")


def figure(command: Callable[..., Result]) -> Callable[..., None]:
    """Of (result, report) that a measurement gives the one goes to --out, the other is shown."""

    @OUT
    @wraps(command)
    def measured(*, out: Path | None, **options: Any) -> None:
        result, report = command(**options)
        click.echo(report)
        if out is not None:
            write_result(result, out)

    return measured


def on_recordings(command: Callable[..., Result]) -> Callable[..., None]:
    """A figure that needs recordings whose words are known, and a model."""

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
    @figure
    @wraps(command)
    def measured(**options: Any) -> Result:
        return command(**options)

    return measured
