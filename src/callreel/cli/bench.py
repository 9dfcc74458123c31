"""`callreel bench`: what measures Callreel, one command a figure; without a name it is the table of speeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from callreel.cli.bench_table import rtfx, table
from callreel.cli.results import Result, figure, on_recordings

SIZES = click.Choice(["tiny", "base", "small"])


class Bench(click.Group):
    """A group whose command, where none is named, is `table`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self.whole(args, ctx.help_option_names))

    def whole(self, args: list[str], help_option_names: Sequence[str] = ()) -> list[str]:
        """`args` with the name of their command in front."""
        named = bool(args) and (args[0] in self.commands or args[0] in help_option_names)
        return args if named else ["table", *args]


@click.group(cls=Bench)
def bench() -> None:
    """Measure. `callreel bench AUDIO...` is `callreel bench table AUDIO...`: models by threads."""


bench.add_command(table)
bench.add_command(rtfx)


@bench.command("live-policy")
@on_recordings
def live_policy(audio: Path, model: Path) -> Result:
    """Live against offline text, by window floor and cut rule, on a virtual clock."""
    from callreel.measure import live_policy

    result = live_policy.run(audio, model)
    return result, live_policy.report(result)


@bench.command("batch-beside-live")
@on_recordings
@click.option("--live-size", type=SIZES, default="tiny", help="Shape of the live engine's weights.")
@click.option("--batch-size", type=SIZES, default="small", help="Shape of the job's weights.")
@click.option("--streams", type=click.IntRange(1), default=4, help="Live streams.")
@click.option("--pairs", type=click.IntRange(1), default=3, help="Stretches without and with the job.")
@click.option("--seconds", "stretch_s", type=click.FloatRange(6), default=60.0, help="Length of a stretch.")
@click.option("--job-seconds", "job_s", type=click.FloatRange(60), help="Length of the job's recording.")
def batch_beside_live(audio: Path, model: Path, **options: Any) -> Result:
    """How much later finals come while a job runs, and how fast the job is."""
    from callreel.measure import beside

    result = beside.run(audio, model, **options)
    return result, beside.report(result)


@bench.command("event-loop")
@on_recordings
@click.option("--live-size", type=SIZES, default="tiny", help="Shape of the live engine's weights.")
@click.option("--streams", type=click.IntRange(1), default=16, help="Live streams.")
@click.option("--seconds", "stretch_s", type=click.FloatRange(6), default=60.0, help="Length of the measurement.")
def event_loop(audio: Path, model: Path, **options: Any) -> Result:
    """Lag, CPU time and memory of the server under paced streams."""
    from callreel.measure import event_loop

    result = event_loop.run(audio, model, **options)
    return result, event_loop.report(result)


@bench.command()
@on_recordings
def crash(audio: Path, model: Path) -> Result:
    """kill -9 of each process under full work: what is lost, what is said twice, what is left over."""
    from callreel.measure import crash

    result = crash.run(audio, model)
    return result, crash.report(result)


@bench.command()
@click.option("--size", type=SIZES, default="base", help="Shape of synthetic weights.")
@click.option(
    "--model", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A model's folder instead."
)
@click.option("--audio", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A recording instead.")
@click.option("--language", default="en", help="What is spoken in it.")
@click.option("--minutes", type=click.FloatRange(0.1), default=10.0, help="Length that the audio is brought to.")
@click.option("--iterations", type=click.IntRange(1), default=5, help="Runs of each.")
@click.option("--threads", type=click.IntRange(1), default=2, help="Threads of each.")
@click.option(
    "--profile", type=click.Choice(["fast", "balanced"]), default="fast", help="fast: greedy, balanced: beam 5."
)
@click.option("--word-times/--no-word-times", default=False, help="Times of words.")
@figure
def overhead(**options: Any) -> Result:
    """Our offline pipeline against faster-whisper's batched one: same model, audio, threads, beam and VAD, in turns."""
    from callreel.measure import overhead

    result = overhead.run(**options)
    return result, overhead.report(result)


@bench.command("long-file")
@click.option("--long", "long_min", type=click.FloatRange(1), default=180.0, help="Minutes of the long file.")
@click.option("--short", "short_min", type=click.FloatRange(1), default=5.0, help="Minutes of the short file.")
@click.option("--size", type=SIZES, default="tiny", help="Shape of synthetic weights.")
@figure
def long_file(**options: Any) -> Result:
    """Peak memory of job and engine child, for a long file and a short one."""
    from callreel.measure import long_file

    result = long_file.run(**options)
    return result, long_file.report(result)


@bench.command()
@click.option("--megabytes", type=click.FloatRange(0.1), default=100.0, help="Size of the file.")
@click.option("--iterations", type=click.IntRange(1), default=5, help="Copies and uploads.")
@figure
def upload(**options: Any) -> Result:
    """An upload over loopback against a plain copy, and the memory of the server meanwhile."""
    from callreel.measure import upload

    result = upload.run(**options)
    return result, upload.report(result)


@bench.command()
@click.option("--clients", type=click.IntRange(1), default=50, help="Clients at once.")
@click.option("--rate", type=click.FloatRange(0.01), default=2.0, help="Requests a second of each.")
@click.option("--seconds", type=click.FloatRange(1), default=30.0, help="Length of the measurement.")
@click.option("--size", type=SIZES, default="small", help="Shape of the transcription's weights.")
@figure
def api(**options: Any) -> Result:
    """Latency of reads over the API while a transcription has all cores."""
    from callreel.measure import reads

    result = reads.run(**options)
    return result, reads.report(result)


@bench.command()
@click.option("--iterations", type=click.IntRange(1), default=10, help="Starts of each.")
@figure
def start(**options: Any) -> Result:
    """Time to `callreel --help`, and to a server that is ready, without a model."""
    from callreel.measure import startup

    result = startup.run(**options)
    return result, startup.report(result)


@bench.command()
@on_recordings
@click.option("--minutes", type=click.FloatRange(1), default=30.0, help="Length of the recording.")
@click.option("--profile", type=click.Choice(["fast", "balanced", "accurate"]), default="balanced", help="Quality.")
def resume(audio: Path, model: Path, **options: Any) -> Result:
    """kill -9 at 80 % of a long transcription: is the text the same, and what was done twice?"""
    from callreel.measure import resume

    result = resume.run(audio, model, **options)
    return result, resume.report(result)
