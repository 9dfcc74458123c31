"""How fast files become text on this machine: a table of models by threads, each run in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callreel.engines.base import EngineSpec
from callreel.errors import InvalidInput
from callreel.measure import trial
from callreel.measure.material import babble_file, repeated_file
from callreel.measure.synthetic import write_weights
from callreel.measure.trial import Order, Trial
from callreel.measure.vocabulary import write_vocabulary
from callreel.measure.wer import word_error_rate
from callreel.offline.pipeline import TranscribeOptions

BABBLE_MIN = 10.0  # of made-up speech, where no length is asked for
TARGETS_RTFX = {"tiny": 60.0, "base": 30.0, "small": 10.0}  # 2 threads, 60 min, greedy, no word times, 100 tokens
TOKENS = 100  # a window: what 30 s of speech come to, at 2.5 words a second
MADE_UP = "made-up speech"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be measured, under the name that people give it. A synthetic one says the same in every window."""

    name: str
    spec: EngineSpec
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Sound:
    """What is listened to; `reference` is what is said in it, where that is known."""

    name: str
    path: Path
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with each (subject, sound): `iterations` runs for each number of threads; `profiled` adds one."""

    threads: tuple[int, ...]
    iterations: int
    options: TranscribeOptions
    batch_min: int = 1
    batch_max: int = 8
    profiled: bool = False


def run(
    subjects: Sequence[Subject], sounds: Sequence[Sound], plan: Plan, *, on_row: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """All rows of the table; `on_row` gets each as soon as it is there. Raises what a transcription raises."""
    rows, costliest = [], {}
    for subject in subjects:
        for threads in plan.threads:
            spec = replace(subject.spec, threads=threads)
            for sound in sounds:
                order = Order(str(sound.path), spec, plan.options, plan.batch_min, plan.batch_max)
                row = _row(subject, sound, threads, [trial.run(order) for _ in range(plan.iterations)])
                rows.append(row)
                on_row(row)
                if plan.profiled:
                    order.profiled = True
                    costliest[f"{subject.name}, {threads} threads, {sound.name}"] = trial.run(order).costliest
    options = plan.options
    return {
        "profile": options.profile,
        "word_times": options.word_times,
        "language": options.language,
        "batch": [plan.batch_min, plan.batch_max],
        "rows": rows,
        **({"costliest": costliest} if costliest else {}),
    }


def _row(subject: Subject, sound: Sound, threads: int, trials: Sequence[Trial]) -> dict[str, Any]:
    first, n = trials[0], len(trials)
    target = TARGETS_RTFX.get(subject.name) if subject.synthetic else None
    return {
        "model": subject.name,
        "synthetic": subject.synthetic,
        "engine": first.engine,
        "threads": threads,
        "audio": sound.name,
        "audio_s": first.audio_s,
        "iterations": n,
        "wall_s": _spread([t.wall_s for t in trials]),
        "rtfx": _spread([t.audio_s / t.wall_s for t in trials]),
        "cpu_cores": round(sum(t.cpu_s / t.wall_s for t in trials) / n, 2),
        "peak_rss_bytes": max(t.peak_rss_bytes for t in trials),
        "load_s": round(sum(t.load_s for t in trials) / n, 2),
        "windows": first.windows,
        "window_s": round(first.window_s / first.windows, 2) if first.windows else None,
        "tokens": first.tokens,
        "wer": None if sound.reference is None else round(word_error_rate(sound.reference, first.text), 4),
        "target_rtfx": target,
        "warnings": first.warnings,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "avg": round(sum(values) / len(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


@contextmanager
def synthetic_subjects(sizes: Sequence[str], spec: EngineSpec, *, tokens: int = TOKENS) -> Iterator[list[Subject]]:
    """Weights of these sizes that say `tokens` words in each window, while the context lasts. Raises InvalidInput."""
    with TemporaryDirectory(prefix="callreel-") as name:
        folder = Path(name)
        vocabulary = write_vocabulary(folder / "vocabulary")
        yield [
            Subject(
                size,
                replace(
                    spec,
                    engine="whisper",
                    model=str(write_weights(size, folder / size, tokenizer_from=vocabulary, chain=tokens)),
                ),
                synthetic=True,
            )
            for size in sizes
        ]


@contextmanager
def sounds(files: Sequence[Path], minutes: Sequence[float]) -> Iterator[list[Sound]]:
    """`files` as they are, or brought to each length; without files made-up speech. They last as long as the context.

    What is said in a file stands beside it, in a .txt of its name; of a file brought to a length nothing is known.
    """
    with TemporaryDirectory(prefix="callreel-") as name:
        found = []
        for i, length_min in enumerate(minutes or ([] if files else [BABBLE_MIN])):
            for j, file in enumerate(files or [None]):
                path, label = Path(name) / f"{i}-{j}.wav", f"{file.name if file else MADE_UP}, {length_min:g} min"
                length_s = length_min * 60
                found.append(Sound(label, repeated_file(path, file, length_s) if file else babble_file(path, length_s)))
        yield found or [Sound(file.name, file, _reference(file)) for file in files]


def _reference(file: Path) -> str | None:
    try:
        return file.with_suffix(".txt").read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The reference text beside {file} cannot be read: {error}") from error


def report(result: dict[str, Any]) -> str:
    """The table for people."""
    head = (
        f"{'model':12} {'threads':>7}  {'audio':28} {'audio s':>8} {'wall s: avg (min, max)':>26}"
        f" {'RTFx: avg (min, max)':>24} {'cores':>5} {'peak MB':>8} {'WER':>6}"
    )
    lines = [
        f"profile {result['profile']}, {'with' if result['word_times'] else 'without'} word times",
        head,
        *map(line, result["rows"]),
    ]
    for what, table in result.get("costliest", {}).items():
        lines += ["", f"{what}: the costliest functions", table]
    return "\n".join(lines)


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    name = f"{row['model']}{' (s)' if row['synthetic'] else ''}"
    return (
        f"{name:12.12} {row['threads']:7}  {row['audio']:28.28} {row['audio_s']:8.1f} {_three(row['wall_s']):>26}"
        f" {_three(row['rtfx']):>24} {row['cpu_cores']:5.2f} {row['peak_rss_bytes'] / 1e6:8.0f}"
        f" {'-' if row['wer'] is None else format(100 * row['wer'], '.1f') + '%':>6}"
    )


def _three(spread: dict[str, float]) -> str:
    return f"{spread['avg']:.1f} ({spread['min']:.1f}, {spread['max']:.1f})"
