"""`callreel bench`: a table of models by threads, on your files or on made-up speech."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callreel.cli.options import DATA_DIR, chosen
from callreel.cli.results import OUT, Listed, Result, figure, write_result

if TYPE_CHECKING:
    from callreel.measure.speed import Subject
    from callreel.settings import Settings

SIZES = ("tiny", "base", "small", "medium", "large-v3")


@click.command("table")
@click.argument("audio", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--models", type=Listed(click.STRING), help="Names or folders, as --model of other commands takes them.")
@click.option("--synthetic", type=Listed(click.Choice(SIZES)), help="Made-up weights of these sizes: no download.")
@click.option("--tokens", type=click.IntRange(1, 224), default=100, help="Words that synthetic weights say a window.")
@click.option("--threads", type=Listed(click.IntRange(1)), help="Decodes at once; the cores if not given.")
@click.option("--minutes", type=Listed(click.FloatRange(0.1)), help="Repeat or cut the audio to these lengths.")
@click.option("--iterations", type=click.IntRange(1), default=1, help="Runs of each row.")
@click.option("--profile", type=click.Choice(["fast", "balanced", "accurate"]), help="Quality; the settings' if unset.")
@click.option("--word-times/--no-word-times", default=True, help="Times of words; without them it is faster.")
@click.option("--language", help="ISO 639-1 code; detected if not given.")
@click.option("--engine", help="auto, whisper, pocketsphinx, openai, or package.module:function.")
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--compute-type", help="How models compute, in CTranslate2's words, or auto.")
@click.option("--cprofile", is_flag=True, help="One more run of each row, for its 20 costliest functions.")
@DATA_DIR
@OUT
def table(
    audio: tuple[Path, ...],
    models: tuple[str, ...] | None,
    synthetic: tuple[str, ...] | None,
    tokens: int,
    threads: tuple[int, ...] | None,
    minutes: tuple[float, ...] | None,
    iterations: int,
    profile: str | None,
    word_times: bool,
    language: str | None,
    engine: str | None,
    cprofile: bool,
    out: Path | None,
    **flags: Any,
) -> None:
    """Speed and memory of models on this machine, and WER where a .txt with the words lies beside the AUDIO.

    Without AUDIO it is made-up speech. The table is kept in the data folder, if not with --out.
    """
    from callreel.engines.specs import final_spec
    from callreel.measure import measured, speed
    from callreel.offline.pipeline import TranscribeOptions

    settings = chosen(flags)
    plan = speed.Plan(
        threads or (settings.engines.threads,),
        iterations,
        TranscribeOptions(language=language, profile=profile or settings.final.profile, word_times=word_times),
        settings.batch.min,
        settings.batch.max,
        cprofile,
    )
    with ExitStack() as stack:
        sounds = stack.enter_context(speed.sounds(audio, minutes or ()))
        subjects = [] if synthetic and not models else _subjects(settings, engine, models)
        if synthetic:
            spec = final_spec(settings)
            subjects += stack.enter_context(speed.synthetic_subjects(synthetic, spec, tokens=tokens))
        result = speed.run(subjects, sounds, plan, on_row=_say)
    click.echo(speed.report(result))
    for row in sorted(result["rows"], key=lambda row: row["rtfx"]["avg"]):  # the best of a model stays
        if row["engine"] == "whisper" and not row["synthetic"]:
            measured.remember(settings.data_dir, row["model"], row["rtfx"]["avg"], row["threads"])
    write_result(result, out or settings.data_dir / "bench" / "table.json")


@click.command("rtfx")
@click.option("--sizes", type=Listed(click.Choice(SIZES)), default="tiny,base,small", help="Of synthetic weights.")
@click.option("--minutes", type=click.FloatRange(0.1), default=60.0, help="Of made-up speech.")
@click.option("--threads", type=click.IntRange(1), default=2, help="Decodes at once.")
@click.option("--iterations", type=click.IntRange(1), default=1, help="Runs of each size.")
@figure
def rtfx(sizes: tuple[str, ...], minutes: float, threads: int, iterations: int) -> Result:
    """Speed by size: greedy, no word times, 100 tokens a window; batches and windows as the product forms them."""
    from callreel.engines.specs import final_spec
    from callreel.measure import speed
    from callreel.offline.pipeline import TranscribeOptions

    settings = chosen({})
    options = TranscribeOptions(language="en", profile="fast", word_times=False)
    plan = speed.Plan((threads,), iterations, options, settings.batch.min, settings.batch.max)
    with (
        speed.sounds((), (minutes,)) as sounds,
        speed.synthetic_subjects(sizes, final_spec(settings)) as subjects,
    ):
        result = speed.run(subjects, sounds, plan, on_row=_say)
    return result, speed.report(result)


def _subjects(settings: Settings, engine: str | None, models: tuple[str, ...] | None) -> list[Subject]:
    from callreel.engines.catalogue import resolve
    from callreel.engines.specs import final_spec
    from callreel.measure.speed import Subject

    subjects = []
    for model in models or (settings.final.model or settings.model,):
        spec, warnings = resolve(final_spec(settings, engine=engine, model=model))
        for warning in warnings:
            click.echo(f"callreel: {warning}", err=True)
        subjects.append(Subject(model, spec))
    return subjects


def _say(row: dict[str, Any]) -> None:
    from callreel.measure.speed import line

    click.echo(line(row), err=True)
