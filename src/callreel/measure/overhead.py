"""What Callreel adds to the library beneath it: its offline pipeline against faster-whisper's batched one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

from callreel.engines.base import EngineSpec
from callreel.engines.whisper import load
from callreel.measure.material import babble_file, duration_s, repeated_file
from callreel.measure.speed import synthetic_subjects
from callreel.offline.pipeline import TranscribeOptions, transcribe
from callreel.offline.profiles import PROFILES
from callreel.text import normalized_words, text_of

TARGET_RATIO = 1.05
BATCH = 8  # both pipelines' own default


@dataclass(frozen=True, slots=True)
class _Contest:
    """One model, loaded twice, and what both are asked for: the same device, compute type, threads, beam and VAD."""

    file: Path
    spec: EngineSpec
    profile: str
    word_times: bool
    language: str

    def ours(self) -> Callable[[], str]:
        engine = load(self.spec)
        options = TranscribeOptions(language=self.language, profile=self.profile, word_times=self.word_times)

        def run() -> str:
            with TemporaryDirectory(prefix="callreel-") as work:
                return text_of(transcribe(self.file, engine, options, work=Path(work), batch_max=BATCH).segments)

        return run

    def theirs(self) -> Callable[[], str]:
        """All threads in one decode: their batches come one after another, so workers would be idle."""
        model = WhisperModel(self.spec.model, device="auto", compute_type="auto", cpu_threads=self.spec.threads)
        pipeline = BatchedInferencePipeline(model)

        def run() -> str:
            segments, _ = pipeline.transcribe(
                str(self.file),
                language=self.language,
                beam_size=PROFILES[self.profile].beam_size,
                temperature=0.0,
                word_timestamps=self.word_times,
                vad_filter=True,
                batch_size=BATCH,
            )
            return " ".join(segment.text for segment in segments)

        return run


def run(
    *,
    size: str = "base",
    minutes: float = 10.0,
    iterations: int = 5,
    threads: int = 2,
    profile: str = "fast",
    word_times: bool = False,
    model: Path | None = None,
    audio: Path | None = None,
    language: str = "en",
) -> dict[str, Any]:
    """Both on the same file, taking turns, after one run each that does not count.

    `model` is a folder, in the place of synthetic weights of `size`; `audio` a recording, in the place of made-up
    speech, brought to `minutes`. Raises what a transcription raises.
    """
    spec = EngineSpec("whisper", "", "models", threads=threads)
    with TemporaryDirectory(prefix="callreel-") as name, synthetic_subjects([] if model else [size], spec) as subjects:
        path, length_s = Path(name) / "audio.wav", 60 * minutes
        file = repeated_file(path, audio, length_s) if audio else babble_file(path, length_s)
        chosen = replace(spec, model=str(model)) if model else subjects[0].spec
        contest = _Contest(file, chosen, profile, word_times, language)
        runs = {"callreel": contest.ours(), "faster-whisper": contest.theirs()}
        words = {side: len(normalized_words(run())) for side, run in runs.items()}
        walls: dict[str, list[float]] = {side: [] for side in runs}
        for turn in range(iterations):
            for side in list(runs)[:: 1 if turn % 2 == 0 else -1]:  # a drift of the machine hits both
                began = time.perf_counter()
                runs[side]()
                walls[side].append(round(time.perf_counter() - began, 3))
        audio_s = duration_s(file)
    medians = {side: statistics.median(found) for side, found in walls.items()}
    return {
        "model": str(model) if model else f"synthetic {size}",
        "audio": audio.name if audio else "made-up speech",
        "audio_s": audio_s,
        "threads": threads,
        "profile": profile,
        "beam_size": PROFILES[profile].beam_size,
        "word_times": word_times,
        "batch": BATCH,
        "words": words,
        "wall_s": walls,
        "wall_s_median": medians,
        "rtfx": {side: round(audio_s / median, 1) for side, median in medians.items()},
        "ratio_of_medians": round(medians["callreel"] / medians["faster-whisper"], 3),
        "target_ratio": TARGET_RATIO,
    }


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    lines = [
        f"{result['model']}, {result['audio']}, {result['audio_s']:.0f} s, {result['threads']} threads,"
        f" beam {result['beam_size']}, {'with' if result['word_times'] else 'without'} word times"
    ]
    for side, walls in result["wall_s"].items():
        shown = ", ".join(f"{wall:.2f}" for wall in walls)
        lines.append(
            f"{side:15} median {result['wall_s_median'][side]:8.2f} s, RTFx {result['rtfx'][side]:6.1f},"
            f" {result['words'][side]} words; runs {shown}"
        )
    return "\n".join([*lines, f"ratio of medians {result['ratio_of_medians']:.3f} (target {result['target_ratio']})"])
