"""The live benchmark: its recordings are known to the word, its figures are right, two runs are alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callreel.audio.pcm import samples, seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.live.session import CutRule, LiveOptions
from callreel.measure.live_policy import DECODE_S, VirtualRun, measure, report, run
from callreel.measure.recordings import N_SHUFFLED, N_UNBROKEN, Recording, Utterance, recordings
from callreel.text import Word, text_of


@pytest.fixture(scope="module")
def few(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the recordings, as a folder of their own."""
    folder = tmp_path_factory.mktemp("few")
    facts = json.loads((audio / "references.json").read_text())
    names = ("en_short.wav", "en_unseen_voice.flac")
    (folder / "references.json").write_text(json.dumps({name: facts[name] for name in names}))
    for name in names:
        (folder / name).symlink_to(audio / name)
    return folder


@pytest.fixture(scope="module")
def result(few: Path, toy: Path) -> dict[str, Any]:
    return run(few, toy, floors=(2,), cuts=(CutRule.WORD, CutRule.PAUSE), hop_s=1.0, other_hops_s=())


def test_every_spoken_track_is_a_recording_and_each_channel_its_own(audio: Path) -> None:
    known = recordings(audio)
    plain = [r.name for r in known if r.group == "plain"]
    assert len(plain) == 10
    assert {"call_stereo/agent", "call_stereo/caller"} <= set(plain)
    agent, caller = (r for r in known if r.name.startswith("call_stereo/"))
    assert not np.array_equal(agent.pcm, caller.pcm)
    assert sum(len(r.words) for r in known) > 600


def test_the_composed_are_the_same_each_time_and_say_what_they_say(audio: Path) -> None:
    first, second = recordings(audio), recordings(audio)
    composed = [r for r in first if r.group != "plain"]
    assert len(composed) == N_SHUFFLED + N_UNBROKEN
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.pcm, other.pcm) and one.words == other.words
    originals = {" ".join(w.word for w in u.words): u for r in first if r.group == "plain" for u in r.utterances}
    for recording in composed:
        for utterance in recording.utterances:
            original = originals[" ".join(w.word for w in utterance.words)]
            assert utterance.end - utterance.start == original.end - original.start
            assert utterance.words[0].start == pytest.approx(seconds(utterance.start), abs=0.002)
            assert np.abs(recording.pcm[utterance.start : utterance.end]).max() > 1000


def test_unbroken_speech_has_no_gap_that_ends_an_utterance(audio: Path) -> None:
    for recording in recordings(audio):
        if recording.group == "unbroken":
            gaps_s = [seconds(b.start - a.end) for a, b in pairwise(recording.utterances)]
            assert max(gaps_s) < LiveOptions().endpoint_silence_s
            assert 15.0 <= seconds(recording.utterances[-1].end) <= 42.0


@dataclass
class Reader:
    """An engine that reads the words off the signal: sample n of word i is i + 1, and silence is 0."""

    name: str = "reader"
    model: str = "none"
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(min_window_s=2.0))
    windows_s: list[float] = field(default_factory=list)

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        return [self._read(window) for window in windows]

    def _read(self, window: Window) -> Decoded:
        self.windows_s.append(seconds(len(window.pcm)))
        words = []
        for i in np.unique(window.pcm[window.pcm > 0]):
            places = np.flatnonzero(window.pcm == i)
            words.append(Word(f" word{i - 1}", seconds(int(places[0])), seconds(int(places[-1]) + 1)))
        return Decoded(tuple(words), "en")


def read_aloud(n_words: int) -> tuple[Recording, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    pcm = np.zeros(samples(1.0 + 0.4 * n_words + 1.0), np.int16)
    words = []
    for i in range(n_words):
        start_s = 1.0 + 0.4 * i
        pcm[samples(start_s) : samples(start_s + 0.4)] = i + 1
        words.append(Word(f"word{i}", start_s, start_s + 0.4))
    spoken = Utterance(samples(1.0), samples(1.0 + 0.4 * n_words), tuple(words))
    frames = pcm[: len(pcm) // 512 * 512].reshape(-1, 512)
    return Recording("read", "plain", "en", pcm, (spoken,)), (frames > 0).any(axis=1).astype(np.float32)


def test_a_perfect_engine_has_no_errors_and_plausible_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, heard = read_aloud(30)
    monkeypatch.setattr("callreel.measure.live_policy._probabilities", lambda _: heard)
    engine = Reader()
    outcome = measure(recording, engine, LiveOptions(hop_s=1.0, max_window_s=10.0), recording.text)
    assert (outcome.live_errors, outcome.offline_errors, outcome.lost, outcome.doubled) == (0, 0, 0, 0)
    assert len(outcome.commit_delays_s) == len(outcome.partial_delays_s) == outcome.words == 30
    assert all(p <= c for p, c in zip(outcome.partial_delays_s, outcome.commit_delays_s, strict=True))
    assert min(outcome.partial_delays_s) >= DECODE_S - 0.4  # a word may be shown while its end is being said
    assert max(outcome.commit_delays_s) <= 2 * (1.0 + 0.3) + DECODE_S + 0.5
    assert outcome.decodes == len(engine.windows_s)
    assert outcome.padded_s == pytest.approx(sum(max(2.0, s) for s in engine.windows_s))
    assert outcome.difference == 0.0


def test_words_lost_and_doubled_are_counted_against_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, heard = read_aloud(10)
    monkeypatch.setattr("callreel.measure.live_policy._probabilities", lambda _: heard)
    outcome = measure(recording, Reader(), LiveOptions(max_window_s=10.0), f"{recording.text} and more")
    assert (outcome.lost, outcome.doubled) == (2, 0)
    assert outcome.difference == pytest.approx(-0.2)


def test_a_virtual_run_shows_partials_and_then_what_is_completed() -> None:
    recording, heard = read_aloud(30)
    played = VirtualRun(Reader(), LiveOptions(hop_s=1.0, max_window_s=10.0)).play(recording.pcm, heard)
    assert text_of(played.segments) == recording.text
    assert [c.word.word.strip() for c in played.committed] == [w.word for w in recording.words]
    moments = [at for at, _ in played.shown]
    assert moments == sorted(moments)
    assert any(not segment.completed for _, segment in played.shown)


def test_the_result_is_json_and_holds_each_variant_once(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result
    assert [(r["floor_s"], r["cut"]) for r in result["rows"]] == [(2.0, "word"), (2.0, "pause")]
    for row in result["rows"]:
        assert [r["recording"] for r in row["recordings"]][:2] == ["en_short", "en_unseen_voice"]
        assert row["words"] == sum(g["words"] for g in row["groups"].values())
        assert row["live_wer"] <= 0.15 and row["lost"] <= 3
        assert row["padded_per_audio_s"] >= 2.0 * row["decodes_per_audio_s"] - 0.01


def test_the_result_says_on_what_it_was_taken_and_not_where(result: dict[str, Any], few: Path) -> None:
    assert set(result["machine"]) == {"cpu", "cores", "memory_gib", "system", "python", "versions"}
    text = json.dumps(result)
    assert str(few) not in text and "/" not in result["model"]


def test_the_report_is_a_table_of_all_variants(result: dict[str, Any]) -> None:
    lines = report(result).splitlines()
    assert f"{sum(a['words'] for a in result['audio'].values())} words" in lines[0]
    header = next(i for i, line in enumerate(lines) if "floor" in line)
    assert len(lines) - header - 1 == len(result["rows"])
    assert len({len(line) for line in lines[header:]}) == 1
