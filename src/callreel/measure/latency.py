"""How late words come: what a paced stream plays and when it was said, against when the server's words were there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from callreel.audio.pcm import Pcm, samples, seconds
from callreel.errors import InvalidInput
from callreel.measure.harness import CHUNK, Played, play, samples_of
from callreel.measure.wer import compare
from callreel.text import Word

# Engines place the last word's end up to this far before the reference's; the next utterance is further away.
END_TOLERANCE_S = 0.3
AFTER_S = 0.2  # of the pause after an utterance, which is longer, that is kept of a recording which is cut there
LAST_SILENCE_S = 1.0  # after the last utterance: it ends by its endpoint as all others do, not by the stream's end


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is said in [start, end) seconds of a stream; the words carry stream time, too."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()

    def shifted(self, by_s: float) -> Utterance:
        words = tuple(word.shifted(by_s) for word in self.words)
        return Utterance(self.start + by_s, self.end + by_s, self.text, words)


@dataclass(frozen=True, slots=True)
class Script:
    """What one stream plays, and what is said in it, in order of time."""

    pcm: Pcm
    utterances: tuple[Utterance, ...]

    @property
    def text(self) -> str:
        return " ".join(utterance.text for utterance in self.utterances)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in seconds (None without a number). `lost` utterances were sent, but no final covers their end."""

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    number: int
    lost: int

    @classmethod
    def of(cls, found: Iterable[float | None]) -> Latency:
        """From one latency in seconds for each thing that was said, None where it was lost."""
        everything = list(found)
        known = [value for value in everything if value is not None]
        p50, p95, p99, most = (round(float(np.percentile(known, q)), 4) if known else None for q in (50, 95, 99, 100))
        return cls(p50, p95, p99, most, len(known), len(everything) - len(known))


def final_latencies(played: Played, utterances: Sequence[Utterance]) -> list[float | None]:
    """For each utterance that was sent whole: seconds from sending the frame that holds its end to its final.

    Its final is the completed segment that covers its end: of those that begin before the end and do not stop more
    than END_TOLERANCE_S short of it, the one that begins last. None if there is none. What the client's framing adds
    before the frame is sent (0 to 256 ms, 128 on average) is not the server's and not in it.
    """
    seen = played.first_seen()
    return [
        None if came is None else came - sent
        for utterance in utterances
        if (sent := _sent_at(played, utterance.end)) is not None
        for came in [_covered_at(seen, utterance.end)]
    ]


def word_latencies(played: Played, words: Iterable[Word]) -> list[float | None]:
    """For each word that was sent whole: seconds from sending the frame that holds its end until any segment, partial
    or completed, reached over its middle. None if none ever did. What the segment says there is not compared.
    """
    seen: dict[tuple[float, float], float] = {}
    for at, message in played.received:
        for segment in message.get("segments", ()):
            seen.setdefault((float(segment["start"]), float(segment["end"])), at)
    found: list[float | None] = []
    for word in words:
        sent, middle = _sent_at(played, word.end), (word.start + word.end) / 2
        if sent is not None:
            came = min((at for (start, end), at in seen.items() if start <= middle <= end), default=None)
            found.append(None if came is None else came - sent)
    return found


def _covered_at(seen: dict[tuple[float, float], float], end_s: float) -> float | None:
    covering = [span for span in seen if span[0] < end_s <= span[1] + END_TOLERANCE_S]
    return seen[max(covering)] if covering else None


def _sent_at(played: Played, moment_s: float) -> float | None:
    """When the frame that holds the sample before `moment_s` had been sent; None if it never was."""
    frame = max(0, samples(moment_s) - 1) // CHUNK
    return played.sent_at[frame] if frame < len(played.sent_at) else None


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of scripts played at once: latencies, and word errors over all words of the scripts."""

    finals: tuple[float | None, ...]
    words: tuple[float | None, ...]
    n_words: int
    errors: int
    broke_off: int  # streams

    @classmethod
    def of(cls, played: Sequence[Played], scripts: Sequence[Script]) -> Spoken:
        pairs = list(zip(played, scripts, strict=True))
        compared = [compare(script.text, p.text) for p, script in pairs]
        return cls(
            tuple(value for p, script in pairs for value in final_latencies(p, script.utterances)),
            tuple(value for p, s in pairs for u in s.utterances for value in word_latencies(p, u.words)),
            sum(c.words for c in compared),
            sum(c.errors for c in compared),
            sum(p.broke_off for p in played),
        )

    @classmethod
    def pooled(cls, parts: Sequence[Spoken]) -> Spoken:
        return cls(
            tuple(value for part in parts for value in part.finals),
            tuple(value for part in parts for value in part.words),
            sum(part.n_words for part in parts),
            sum(part.errors for part in parts),
            sum(part.broke_off for part in parts),
        )

    def facts(self) -> dict[str, Any]:
        """For a result's JSON; times in seconds."""
        return {
            "final_s": asdict(Latency.of(self.finals)),
            "word_s": asdict(Latency.of(self.words)),
            "wer": round(self.errors / self.n_words, 4) if self.n_words else 0.0,
            "streams_broken_off": self.broke_off,
        }


def scripts(audio: Path, number: int, duration_s: float, *, language: str = "en") -> list[Script]:
    """`number` scripts of at most `duration_s`, each a loop over all one-track recordings in `language` that
    `audio`/references.json names, and each beginning with another one. They end with an utterance and its silence.
    """
    known = []
    for name, entry in json.loads((audio / "references.json").read_text()).items():
        said = [_utterance(u) for track in entry["tracks"].values() for u in track["utterances"]]
        if entry["language"] == language and len(entry["tracks"]) == 1 and said:
            known.append(Script(samples_of(audio / name), tuple(said)))
    if not known:
        raise InvalidInput(f"{audio} has no one-track recording in {language!r} with utterances")
    return [_joined(known, turn, duration_s) for turn in range(number)]


def _joined(known: Sequence[Script], turn: int, duration_s: float) -> Script:
    parts: list[Pcm] = []
    said: list[Utterance] = []
    at = 0
    while at < samples(duration_s):
        script = known[(turn + len(parts)) % len(known)]
        said += [utterance.shifted(seconds(at)) for utterance in script.utterances]
        parts.append(script.pcm)
        at += len(script.pcm)
    said = [utterance for utterance in said if utterance.end + LAST_SILENCE_S <= duration_s]
    if not said:
        raise InvalidInput(f"{duration_s:g} s is too short for an utterance")
    spoken = np.concatenate(parts)[: samples(said[-1].end + AFTER_S)]
    return Script(np.pad(spoken, (0, samples(LAST_SILENCE_S - AFTER_S))), tuple(said))


def _utterance(facts: dict[str, Any]) -> Utterance:
    words = tuple(Word(w["word"], w["start"], w["end"]) for w in facts["words"])
    return Utterance(facts["start"], facts["end"], facts["text"], words)


async def play_all(url: str, parts: Sequence[Script], *, stagger_s: float, language: str = "en") -> list[Played]:
    """Play all of them at once, each beginning `stagger_s` after the one before it."""

    async def later(turn: int, script: Script) -> Played:
        await asyncio.sleep(turn * stagger_s)
        return await play(url, script.pcm, language=language)

    return list(await asyncio.gather(*(later(turn, script) for turn, script in enumerate(parts))))


def seconds_of(parts: Sequence[Script]) -> float:
    """Of all scripts together."""
    return sum(seconds(len(script.pcm)) for script in parts)
