"""Live against offline on known audio, by window floor and cut rule, with session and policy on a virtual clock.

Nothing here depends on how fast the machine is: every decode takes the same virtual time, so two runs give the same
text and the same delays.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import wave
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from callreel.audio.pcm import SAMPLE_RATE, Pcm, samples, seconds
from callreel.audio.vad import FRAME, Probabilities, Vad
from callreel.engines import whisper
from callreel.engines.base import Decoded, DecodeOptions, Engine, EngineSpec, Window
from callreel.live.session import CutRule, LiveOptions, Session, Work
from callreel.measure.machine import machine
from callreel.measure.recordings import GROUPS, Recording, recordings
from callreel.measure.wer import compare
from callreel.offline.pipeline import TranscribeOptions, transcribe
from callreel.text import Segment, Word, normalized_words, text_of

CHUNK_S = 0.256  # what WhisperLive's client sends at a time
DECODE_S = 0.2  # virtual time of one decode
SAME_MOMENT_S = 0.5  # a word shown this near to where the reference has it is that word
DEFAULTS = LiveOptions()
OTHER_HOPS_S = (1.0,)


@dataclass(frozen=True, slots=True)
class Committed:
    """A word of the live transcript and the moment, in seconds of the recording, at which it was certain."""

    word: Word
    at_s: float


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One recording through a session: what was said, when each word was certain, and what was shown meanwhile."""

    segments: list[Segment]
    committed: list[Committed]
    shown: list[tuple[float, Segment]]  # every segment, partial or completed, with its moment
    decodes: int
    decoded_s: float  # audio given to the engine
    padded_s: float  # the same, with what the engine pads each window with


class VirtualRun:
    """One session played in real time on a virtual clock: each decode takes `decode_s`, audio never waits for it."""

    def __init__(self, engine: Engine, options: LiveOptions, *, decode_s: float = DECODE_S) -> None:
        self._engine, self._decode_s = engine, decode_s
        self._session = Session(options, track="main")
        self._out: tuple[Work, Decoded, float] | None = None  # what, its result, when that comes
        self._run = LiveRun([], [], [], 0, 0.0, 0.0)

    def play(self, pcm: Pcm, probabilities: Probabilities | None = None) -> LiveRun:
        """Play a whole recording; `probabilities` of its frames, where they are known already."""
        heard = Vad().feed(pcm) if probabilities is None else probabilities
        chunk = samples(CHUNK_S)
        for at in range(0, len(pcm), chunk):
            part = np.array(pcm[at : at + chunk])
            now = seconds(at + len(part))
            self._settle(now)
            self._session.feed(part, heard[at // FRAME : (at + len(part)) // FRAME])
            self._start(now)
        self._session.flush()
        now = seconds(len(pcm))
        while not self._session.idle:
            self._settle(now)
            self._start(now)
            now = self._out[2] if self._out else now
        return self._run

    def _start(self, now: float) -> None:
        if self._out is not None or self._session.wants() is None:
            return
        work = self._session.take()
        self._out = work, self._engine.decode([work.window], work.options)[0], now + self._decode_s
        length_s = seconds(len(work.window.pcm))
        self._run = replace(
            self._run,
            decodes=self._run.decodes + 1,
            decoded_s=self._run.decoded_s + length_s,
            padded_s=self._run.padded_s + max(length_s, self._engine.capabilities.min_window_s),
        )

    def _settle(self, now: float) -> None:
        if self._out is None or now < self._out[2]:
            return
        work, result, at = self._out
        self._out = None
        agreement = work.utterance.agreement
        known = len(agreement.committed)
        for segment in self._session.decoded(work, result):
            self._run.shown.append((at, segment))
            if segment.completed:
                self._run.segments.append(segment)
        self._run.committed.extend(Committed(word.as_word(), at) for word in agreement.committed[known:])


@dataclass(frozen=True, slots=True)
class Outcome:
    """One recording, one floor, one cut rule. Delays count from the end of the word in the reference."""

    recording: str
    group: str
    audio_s: float
    words: int
    live_errors: int
    offline_errors: int
    lost: int  # words that offline has and live has not
    doubled: int  # words that live says twice and offline once
    decodes: int
    padded_s: float
    commit_delays_s: tuple[float, ...]
    partial_delays_s: tuple[float, ...]
    live: str
    offline: str

    @property
    def difference(self) -> float:
        """Live WER minus offline WER."""
        return (self.live_errors - self.offline_errors) / self.words


def measure(recording: Recording, engine: Engine, options: LiveOptions, offline: str) -> Outcome:
    """Play one recording live and compare it with what `offline` says."""
    run = VirtualRun(engine, options).play(recording.pcm, _probabilities(recording))
    live = text_of(run.segments)
    against = compare(offline, live)
    return Outcome(
        recording.name,
        recording.group,
        seconds(len(recording.pcm)),
        len(normalized_words(recording.text)),
        compare(recording.text, live).errors,
        compare(recording.text, offline).errors,
        against.deletions,
        against.doubled,
        run.decodes,
        run.padded_s,
        tuple(_commit_delays(recording.words, run.committed)),
        tuple(_partial_delays(recording.words, run.shown)),
        live,
        offline,
    )


def _commit_delays(words: Sequence[Word], committed: Sequence[Committed]) -> Iterator[float]:
    """Of each word that was heard rightly: the moment it was committed minus the moment it had been said."""
    said, got = [_key(w) for w in words], [_key(c.word) for c in committed]
    for edit in Levenshtein.opcodes(said, got):
        if edit.tag == "equal":
            for i, j in zip(range(edit.src_start, edit.src_end), range(edit.dest_start, edit.dest_end), strict=True):
                yield committed[j].at_s - words[i].end


def _partial_delays(words: Sequence[Word], shown: Sequence[tuple[float, Segment]]) -> Iterator[float]:
    """Of each word: the moment it was first shown minus the moment it had been said."""
    waiting = list(words)
    for at_s, segment in shown:
        places = [(_key(w), (w.start + w.end) / 2) for w in segment.words]
        still = []
        for word in waiting:
            middle = (word.start + word.end) / 2
            if any(key == _key(word) and abs(place - middle) <= SAME_MOMENT_S for key, place in places):
                yield at_s - word.end
            else:
                still.append(word)
        waiting = still


def _key(word: Word) -> str:
    return " ".join(normalized_words(word.word))


_heard: dict[str, Probabilities] = {}


def _probabilities(recording: Recording) -> Probabilities:
    """The VAD hears each recording once a process."""
    if recording.name not in _heard:
        _heard[recording.name] = Vad().feed(recording.pcm)
    return _heard[recording.name]


def offline_text(recording: Recording, engine: Engine) -> str:
    """What the offline pipeline makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(recording.pcm.tobytes())
        return text_of(transcribe(path, engine, TranscribeOptions(), work=Path(folder)).segments)


@dataclass(frozen=True, slots=True)
class _Task:
    """All runs of one recording at one floor."""

    folder: Path
    model: Path
    recording: int
    floor_s: float
    variants: tuple[tuple[float, CutRule], ...]  # hop (s) and cut rule


@lru_cache(maxsize=1)
def _known(folder: Path) -> list[Recording]:
    return recordings(folder)


@lru_cache(maxsize=8)
def _engine(model: Path, floor_s: float) -> Engine:
    return whisper.load(EngineSpec("whisper", str(model), str(model.parent), min_window_s=floor_s))


class _Remembering:
    """An engine that decodes no window twice: the cut rules ask for the same ones at every utterance's start."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.model, self.capabilities = engine.name, engine.model, engine.capabilities
        self._known: dict[tuple[bytes, DecodeOptions], Decoded] = {}

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        return [self._one(window, options) for window in windows]

    def _one(self, window: Window, options: DecodeOptions) -> Decoded:
        key = window.pcm.tobytes(), options
        if key not in self._known:
            self._known[key] = self._engine.decode([window], options)[0]
        return self._known[key]


def _outcomes(task: _Task) -> list[tuple[float, float, CutRule, Outcome]]:
    recording, engine = _known(task.folder)[task.recording], _Remembering(_engine(task.model, task.floor_s))
    offline = offline_text(recording, _engine(task.model, task.floor_s))
    found = []
    for hop_s, cut in task.variants:
        options = LiveOptions(hop_s=hop_s, cut=cut, max_window_s=engine.capabilities.max_window_s)
        found.append((task.floor_s, hop_s, cut, measure(recording, engine, options, offline)))
    return found


def run(
    recordings_folder: Path,
    model_folder: Path,
    *,
    floors: Sequence[float] = (2, 5, 10, 30),
    cuts: Sequence[CutRule] = tuple(CutRule),
    hop_s: float = DEFAULTS.hop_s,
    other_hops_s: Sequence[float] = OTHER_HOPS_S,
    processes: int = 2,
) -> dict[str, Any]:
    """Compare live with offline for every window floor (s) and cut rule; the result can be written as JSON.

    The default cut rule is also played with hops of `other_hops_s`. `recordings_folder` is one with references.json
    (what was said, with times), `model_folder` a Whisper model for CTranslate2 that knows its words.
    """
    known = _known(recordings_folder)
    variants = [(hop_s, cut) for cut in cuts]
    variants += [(other, DEFAULTS.cut) for other in other_hops_s if DEFAULTS.cut in cuts]
    tasks = [
        _Task(recordings_folder, model_folder, i, float(floor_s), tuple(variants))
        for floor_s in sorted(floors, reverse=True)  # the dearest first, so that both processes end together
        for i in sorted(range(len(known)), key=lambda i: -len(known[i].pcm))
    ]
    rows: dict[tuple[float, float, CutRule], list[Outcome]] = {
        (float(floor_s), *variant): [] for floor_s in sorted(floors) for variant in variants
    }
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the pool: it has a process a core already
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(_outcomes, tasks):
            for floor_s, played_hop_s, cut, outcome in found:
                rows[floor_s, played_hop_s, cut].append(outcome)
    policy = ("endpoint_silence_s", "hop_s", "look_back_s", "max_segment_s")
    defaults = {"cut": DEFAULTS.cut.value} | {name: getattr(DEFAULTS, name) for name in policy}
    return {
        "benchmark": "live-policy",
        "model": model_folder.resolve().name,
        "machine": machine(),
        "settings": {"chunk_s": CHUNK_S, "decode_s": DECODE_S, "defaults": defaults},
        "audio": {
            group: {
                "recordings": sum(r.group == group for r in known),
                "seconds": round(sum(seconds(len(r.pcm)) for r in known if r.group == group), 1),
                "words": sum(len(r.words) for r in known if r.group == group),
            }
            for group in GROUPS
        },
        "rows": [_row(*key, outcomes) for key, outcomes in rows.items()],
    }


def _row(floor_s: float, hop_s: float, cut: CutRule, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    groups = {group: [o for o in outcomes if o.group == group] for group in GROUPS}
    return {
        "floor_s": floor_s,
        "hop_s": hop_s,
        "cut": cut.value,
        **_figures(outcomes),
        "groups": {group: _figures(members) for group, members in groups.items() if members},
        "recordings": [
            {
                "recording": o.recording,
                "words": o.words,
                "live_wer": round(o.live_errors / o.words, 4),
                "offline_wer": round(o.offline_errors / o.words, 4),
                "lost": o.lost,
                "doubled": o.doubled,
            }
            for o in sorted(outcomes, key=lambda o: (GROUPS.index(o.group), o.recording))
        ],
    }


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    words, audio_s = sum(o.words for o in outcomes), sum(o.audio_s for o in outcomes)
    commits = [delay for o in outcomes for delay in o.commit_delays_s]
    partials = [delay for o in outcomes for delay in o.partial_delays_s]
    decodes = sum(o.decodes for o in outcomes)
    return {
        "words": words,
        "live_wer": round(sum(o.live_errors for o in outcomes) / words, 4),
        "offline_wer": round(sum(o.offline_errors for o in outcomes) / words, 4),
        "difference_mean": round(sum(o.difference for o in outcomes) / len(outcomes), 4),
        "difference_worst": round(max(o.difference for o in outcomes), 4),
        "lost": sum(o.lost for o in outcomes),
        "doubled": sum(o.doubled for o in outcomes),
        "commit_delay_s": _percentiles(commits),
        "partial_delay_s": _percentiles(partials),
        "decodes": decodes,
        "decodes_per_audio_s": round(decodes / audio_s, 3),
        "padded_per_audio_s": round(sum(o.padded_s for o in outcomes) / audio_s, 3),
    }


def _percentiles(values: Iterable[float]) -> dict[str, float | None]:
    known = list(values)
    return {name: round(float(np.percentile(known, q)), 2) if known else None for name, q in (("p50", 50), ("p95", 95))}


COLUMNS = (
    ("floor", 5), ("hop", 4), ("cut", 9), ("live", 6), ("offl.", 6), ("mean", 7), ("worst", 7), ("plain", 7),
    ("comp.", 7), ("unbr.", 7), ("lost", 4), ("dbl", 3), ("commit p50/p95", 14), ("partial p50/p95", 15),
    ("dec/s", 5), ("cost", 5),
)  # fmt: skip


def report(result: Mapping[str, Any]) -> str:
    """The result of `run` as a table for people: rates in percent, times in seconds."""
    audio, facts = result["audio"], result["machine"]
    lines = [
        f"{sum(a['words'] for a in audio.values())} words in {sum(a['seconds'] for a in audio.values()):.0f} s: "
        + ", ".join(f"{a['recordings']} {group}" for group, a in audio.items())
        + f"; model {result['model']}; {facts['cpu']}, {facts['cores']} cores",
        "live, offl.: WER in %; mean, worst, plain, comp., unbr.: live minus offline, in points, mean over recordings;",
        "lost, dbl: words lost and doubled against offline; delays in s; dec/s, cost: decodes, and seconds of padded",
        "audio decoded, for each second of audio",
        "",
        "  ".join(name.rjust(width) for name, width in COLUMNS),
    ]
    for row in result["rows"]:
        groups = [row["groups"].get(group, {}).get("difference_mean") for group in GROUPS]
        differences = [row["difference_mean"], row["difference_worst"], *groups]
        cells = [
            f"{row['floor_s']:g}",
            f"{row['hop_s']:g}",
            row["cut"],
            f"{100 * row['live_wer']:.1f}",
            f"{100 * row['offline_wer']:.1f}",
            *("-" if d is None else f"{100 * d:+.1f}" for d in differences),
            str(row["lost"]),
            str(row["doubled"]),
            _pair(row["commit_delay_s"]),
            _pair(row["partial_delay_s"]),
            f"{row['decodes_per_audio_s']:.2f}",
            f"{row['padded_per_audio_s']:.2f}",
        ]
        lines.append("  ".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)))
    return "\n".join(lines)


def _pair(percentiles: Mapping[str, float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.2f}" for value in percentiles.values())
