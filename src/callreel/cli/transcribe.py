"""`callreel transcribe FILE`: one process, nothing stored."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callreel.cli.options import chosen

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from callreel.offline.pipeline import Progress


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--engine", help="auto, whisper, pocketsphinx, or package.module:function.")
@click.option("--model", help="A size, a hub repository id, or a folder.")
@click.option("--language", help="ISO 639-1 code; detected if not given.")
@click.option("--task", type=click.Choice(["transcribe", "translate"]), default="transcribe")
@click.option("--format", "format_", default="txt", help="Output format: txt, srt, vtt, json, tsv, md or docx.")
def transcribe(
    files: tuple[Path, ...],
    engine: str | None,
    model: str | None,
    language: str | None,
    task: str,
    format_: str,
) -> None:
    """Write down what is said in FILES, on standard output."""
    from callreel.calls.store import Call
    from callreel.engines import catalogue
    from callreel.engines.specs import final_spec
    from callreel.offline import pipeline
    from callreel.transcripts.formats import FORMATS, format_named
    from callreel.transcripts.store import Transcript

    format = format_named(format_)
    settings = chosen({})
    asked = final_spec(settings, engine=engine, model=model)
    spec, warnings = catalogue.resolve(asked)
    for warning in warnings:
        click.echo(f"callreel: {warning}", err=True)
    loaded = catalogue.load(spec)
    options = pipeline.TranscribeOptions(language=language, task=task)
    for file in files:
        with (
            tempfile.TemporaryDirectory(prefix="callreel-") as work,
            click.progressbar(length=100, label=file.name, file=sys.stderr) as bar,
        ):
            done = pipeline.transcribe(
                file,
                loaded,
                options,
                work=Path(work),
                on_progress=partial(_show, bar),
            )
        # What the formats want to know of a call and a transcript; neither is stored.
        call = Call.of_file(file.name, done.duration_s, done.language, tracks=(pipeline.TRACK,))
        transcript = Transcript.of_file(loaded.name, loaded.model, done.language, [*warnings, *done.warnings])
        click.echo(format.render(call, transcript, done.segments), nl=format is FORMATS["json"])


def _show(bar: ProgressBar[int], progress: Progress) -> None:
    bar.update(int(progress.percent) - bar.pos)
