"""Recordings whose every word is known: those of a folder, and new ones composed from their utterances."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from callreel.audio.decode import Sound
from callreel.audio.pcm import Pcm, samples, seconds
from callreel.text import Word

GROUPS = ("plain", "composed", "unbroken")
MARGIN_S = 0.05  # kept round an utterance that is cut out
N_SHUFFLED, N_UNBROKEN = 2, 3  # composed recordings of either kind


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is said in samples [start, end) of a recording; the words carry seconds from the recording's start."""

    start: int
    end: int
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """One track whose words are known. `group` is one of GROUPS."""

    name: str
    group: str
    language: str | None
    pcm: Pcm
    utterances: tuple[Utterance, ...]

    @property
    def words(self) -> list[Word]:
        return [word for utterance in self.utterances for word in utterance.words]

    @property
    def text(self) -> str:
        return " ".join(word.word for word in self.words)


def recordings(folder: Path) -> list[Recording]:
    """Every track of `references.json` in `folder`, and recordings composed from their utterances, always the same."""
    plain = [track for name, facts in _references(folder).items() for track in _tracks(folder / name, facts)]
    return [*plain, *_composed(plain)]


def _references(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "references.json").read_text())
    return found


def _tracks(path: Path, facts: Mapping[str, Any]) -> Iterator[Recording]:
    channels = np.concatenate(list(Sound(path, "split"))).T.copy()
    for channel, (track, said) in zip(channels, facts["tracks"].items(), strict=False):
        utterances = tuple(
            Utterance(
                samples(u["start"]),
                samples(u["end"]),
                tuple(Word(w["word"], w["start"], w["end"]) for w in u["words"]),
            )
            for u in said["utterances"]
        )
        name = path.stem if len(facts["tracks"]) == 1 else f"{path.stem}/{track}"
        if utterances:
            yield Recording(name, "plain", facts["language"], channel, utterances)


def _composed(plain: Sequence[Recording]) -> Iterator[Recording]:
    """Utterances of the commonest language in new orders: with pauses between them, and with none."""
    languages = [recording.language for recording in plain]
    language = max(sorted({x for x in languages if x}), key=languages.count)
    pool = [(r.pcm, u) for r in plain if r.language == language for u in r.utterances]
    for i in range(N_SHUFFLED):
        yield _joined(f"shuffled {i + 1}", "composed", language, pool, seed=i, total_s=40.0, gap_s=(0.4, 1.6))
    for i in range(N_UNBROKEN):
        total_s = 20.0 + 20.0 * i / max(N_UNBROKEN - 1, 1)
        name = f"unbroken {i + 1}"
        yield _joined(name, "unbroken", language, pool, seed=100 + i, total_s=total_s, gap_s=(0.02, 0.08))


def _joined(
    name: str,
    group: str,
    language: str,
    pool: Sequence[tuple[Pcm, Utterance]],
    *,
    seed: int,
    total_s: float,
    gap_s: tuple[float, float],
) -> Recording:
    random, margin = np.random.default_rng(seed), samples(MARGIN_S)
    parts, utterances = [np.zeros(samples(0.5), np.int16)], list[Utterance]()
    at = len(parts[0])
    for i in random.permutation(len(pool)):
        pcm, said = pool[int(i)]
        low, high = max(0, said.start - margin), min(len(pcm), said.end + margin)
        if at + high - low > samples(total_s) and utterances:
            break
        moved_s = seconds(at - low)
        words = tuple(word.shifted(moved_s) for word in said.words)
        utterances.append(Utterance(at + said.start - low, at + said.end - low, words))
        gap = np.zeros(samples(float(random.uniform(*gap_s))), np.int16)
        parts += [pcm[low:high], gap]
        at += high - low + len(gap)
    parts.append(np.zeros(samples(1.0), np.int16))
    return Recording(name, group, language, np.concatenate(parts), tuple(utterances))
