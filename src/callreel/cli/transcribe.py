"""`callreel transcribe FILE`: one process, nothing stored but what is written beside the input."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callreel.cli.options import PRESET, chosen
from callreel.errors import CallreelError, InvalidInput

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from callreel.engines.base import Engine
    from callreel.offline.pipeline import Progress, TranscribeOptions
    from callreel.settings import Batch
    from callreel.transcripts.formats import Format, FormatOptions

STDOUT = "-"
SHAPE = ("max_line_chars", "max_lines", "min_cue_s", "max_cue_s", "timestamps")  # of FormatOptions


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "-f", "format_", default="txt", help="txt, srt, vtt, json, tsv, md or docx.")
@click.option("--output", "-o", help="A file, a folder, or - for standard output; beside each input if not given.")
@click.option("--engine", help="auto, whisper, pocketsphinx, openai, or package.module:function.")
@click.option("--model", help="A name of `callreel models`, a hub repository id, or a folder.")
@PRESET
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--compute-type", help="How the model computes, in CTranslate2's words, or auto.")
@click.option("--threads", type=click.IntRange(1), help="Decodes at once, one core each.")
@click.option("--profile", help="fast, balanced or accurate.")
@click.option("--language", help="ISO 639-1 code; detected if not given.")
@click.option(
    "--task", type=click.Choice(["transcribe", "translate"]), default="transcribe", help="translate: English."
)
@click.option("--prompt", default="", help="Text that steers spelling and style.")
@click.option("--hotwords", default="", help="Words to expect.")
@click.option("--channels", type=click.Choice(["mix", "split"]), default="mix", help="split: a track a channel.")
@click.option("--speakers", default="", help="Who is on each channel, in order: agent,caller.")
@click.option("--word-times/--no-word-times", default=True, help="Times of words; without them it is faster.")
@click.option("--max-line-chars", type=int, help="Columns of a subtitle line.")
@click.option("--max-lines", type=int, help="Lines of a subtitle.")
@click.option("--min-cue-s", type=float, help="Seconds that a subtitle is shown at least.")
@click.option("--max-cue-s", type=float, help="Seconds that a subtitle is shown at most.")
@click.option("--timestamps/--no-timestamps", default=None, help="Times before the lines of txt, md and docx.")
def transcribe(
    files: tuple[Path, ...],
    format_: str,
    output: str | None,
    language: str | None,
    task: str,
    prompt: str,
    hotwords: str,
    channels: Any,
    speakers: str,
    word_times: bool,
    **flags: Any,
) -> None:
    """Write down what is said in FILES: beside each its transcript, with the format's ending."""
    from callreel.engines import catalogue
    from callreel.engines.specs import final_spec
    from callreel.offline.pipeline import TranscribeOptions
    from callreel.transcripts.formats import FormatOptions, format_named

    format = format_named(format_)
    shape = FormatOptions(**{name: value for name in SHAPE if (value := flags.pop(name)) is not None})
    # Here --engine and --model mean this command's one engine, whatever `final` says.
    asked = {name: flags.pop(name) for name in ("engine", "model")}
    settings = chosen(flags)
    target = _Target(output, files, format)
    spec, warnings = catalogue.resolve(final_spec(settings, **asked))
    for warning in warnings:
        click.echo(f"callreel: {warning}", err=True)
    options = TranscribeOptions(
        language=language,
        task=task,
        prompt=prompt,
        hotwords=hotwords,
        profile=settings.final.profile,
        channels=channels,
        speakers=tuple(name.strip() for name in speakers.split(",") if name.strip()),
        word_times=word_times,
    )
    engine = catalogue.load(spec)
    failed = 0
    for file in files:
        try:
            target.write(file, _written(file, engine, options, settings.batch, warnings, format, shape))
        except CallreelError as error:
            if len(files) == 1:
                raise
            failed += 1
            click.echo(f"callreel: {file}: {error}\n  {error.hint}".rstrip(), err=True)
    if failed:
        raise CallreelError(
            f"{failed} of {len(files)} files could not be transcribed", hint="What each lacks is said above"
        )


def _written(
    file: Path,
    engine: Engine,
    options: TranscribeOptions,
    batch: Batch,
    warnings: list[str],
    format: Format,
    shape: FormatOptions,
) -> bytes:
    """The transcript of one file, in its format."""
    from callreel.calls.store import Call
    from callreel.offline.pipeline import transcribe
    from callreel.transcripts.store import Transcript

    with (
        tempfile.TemporaryDirectory(prefix="callreel-") as work,
        click.progressbar(length=100, label=file.name, file=sys.stderr, item_show_func=_step) as bar,
    ):
        done = transcribe(
            file,
            engine,
            options,
            work=Path(work),
            on_progress=lambda p: _show(bar, p),
            batch_min=batch.min,
            batch_max=batch.max,
        )
    for warning in done.warnings:
        click.echo(f"callreel: {file.name}: {warning}", err=True)
    # What the formats want to know of a call and a transcript; neither is stored.
    call = Call.of_file(
        file.name, done.duration_s, done.language, [(track.name, track.speaker, track.channel) for track in done.tracks]
    )
    transcript = Transcript.of_file(engine.name, engine.model, done.language, [*warnings, *done.warnings])
    return format.render(call, transcript, done.segments, shape)


def _show(bar: ProgressBar[Progress | None], progress: Progress) -> None:
    bar.update(int(progress.percent) - bar.pos, progress)


def _step(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    return progress.step if progress.rtfx is None else f"{progress.step}, RTFx {progress.rtfx:.1f}"


@dataclass(frozen=True)
class _Target:
    """Where transcripts go. Raises InvalidInput for one place for several files, or one that is an input."""

    output: str | None
    files: tuple[Path, ...]
    format: Format

    def __post_init__(self) -> None:
        if self.output not in (None, STDOUT) and len(self.files) > 1 and not Path(str(self.output)).is_dir():
            raise InvalidInput(
                f"{self.output} is one file for {len(self.files)}", hint="Give a folder that exists, or -"
            )
        paths = [self.path(file) for file in self.files]
        for path in paths:
            if path is not None and path in self.files:
                raise InvalidInput(f"{path} is to be read and written", hint="Give another place with --output")
            if path is not None and paths.count(path) > 1:
                raise InvalidInput(f"Two inputs would be written to {path}", hint="Transcribe them one by one")

    def path(self, file: Path) -> Path | None:
        """Of the transcript of `file`; None for standard output."""
        if self.output == STDOUT:
            return None
        name = f"{file.stem}.{self.format.extension}"
        if self.output is None:
            return file.with_name(name)
        chosen = Path(self.output)
        return chosen / name if chosen.is_dir() else chosen

    def write(self, file: Path, content: bytes) -> None:
        path = self.path(file)
        if path is None:
            sys.stdout.buffer.write(content + b"\n" if self.format.name == "json" else content)
            sys.stdout.buffer.flush()
            return
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise InvalidInput(f"{path} cannot be written: {error.strerror}", hint="See --output") from error
        click.echo(str(path), err=True)
