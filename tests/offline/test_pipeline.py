from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callreel.audio.decode import decode
from callreel.audio.pcm import samples
from callreel.engines.pocketsphinx import PocketSphinxEngine
from callreel.engines.whisper import WhisperEngine
from callreel.errors import Cancelled, InvalidInput, UnreadableMedia
from callreel.measure.wer import compare
from callreel.offline.pipeline import Progress, TranscribeOptions, Transcription, transcribe
from callreel.text import text_of
from tests.audio.files import write_wav

SPOKEN = (
    "en_short.wav",
    "en_digits.flac",
    "en_two_speakers.flac",
    "en_live_20s.flac",
    "en_long_50s.flac",
    "en_silence_middle.flac",
    "en_unseen_voice.flac",
    "sw_short.flac",
)


@pytest.fixture(scope="module")
def transcripts(
    toy_engine: WhisperEngine, toy_audio: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Transcription]:
    work = tmp_path_factory.mktemp("work")
    found = {name: transcribe(toy_audio / name, toy_engine, TranscribeOptions(), work=work) for name in SPOKEN}
    assert list(work.iterdir()) == []
    return found


def test_what_was_said_is_written_down(transcripts: dict[str, Transcription], references: dict[str, Any]) -> None:
    compared = [compare(references[n]["tracks"]["mono"]["text"], text_of(t.segments)) for n, t in transcripts.items()]
    assert sum(c.rate for c in compared) / len(compared) <= 0.08
    assert sum(c.errors for c in compared) / sum(c.words for c in compared) <= 0.08


@pytest.mark.parametrize("name", SPOKEN)
def test_the_language_is_heard(name: str, transcripts: dict[str, Transcription], references: dict[str, Any]) -> None:
    assert transcripts[name].language == references[name]["language"]
    assert {s.language for s in transcripts[name].segments} == {references[name]["language"]}


@pytest.mark.parametrize("name", SPOKEN)
def test_times_are_in_order_and_inside(
    name: str, transcripts: dict[str, Transcription], references: dict[str, Any]
) -> None:
    transcript = transcripts[name]
    assert transcript.duration_s == references[name]["duration"]
    assert [s.seq for s in transcript.segments] == list(range(len(transcript.segments)))
    times = [t for s in transcript.segments for w in s.words for t in (w.start, w.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= transcript.duration_s + 0.001


@pytest.mark.parametrize("name", ["en_short.wav", "en_two_speakers.flac", "sw_short.flac", "en_unseen_voice.flac"])
def test_words_stand_where_they_were_said(
    name: str, transcripts: dict[str, Transcription], references: dict[str, Any]
) -> None:
    said = [w for u in references[name]["tracks"]["mono"]["utterances"] for w in u["words"]]
    heard = [w for s in transcripts[name].segments for w in s.words]
    assert [w.word.strip() for w in heard] == [w["word"] for w in said]
    for got, expected in zip(heard, said, strict=True):
        assert got.start == pytest.approx(expected["start"], abs=0.25)
        assert got.end == pytest.approx(expected["end"], abs=0.25)


@pytest.mark.parametrize("name", ["silence_5s.flac", "noise_8s.flac"])
def test_nothing_is_written_where_nobody_speaks(
    name: str, toy_engine: WhisperEngine, toy_audio: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    transcript = transcribe(toy_audio / name, toy_engine, TranscribeOptions(), work=tmp_path, on_progress=seen.append)
    assert transcript.segments == ()
    assert transcript.language is None
    assert transcript.duration_s == references[name]["duration"]
    assert seen[-1] == Progress(100, "done", 0.0)


def test_a_repeated_run_gives_the_same(
    transcripts: dict[str, Transcription], toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path
) -> None:
    name = "en_live_20s.flac"
    assert transcribe(toy_audio / name, toy_engine, TranscribeOptions(), work=tmp_path) == transcripts[name]


def test_progress_rises_to_100(toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    source = toy_audio / "en_long_50s.flac"
    transcribe(source, toy_engine, TranscribeOptions(), work=tmp_path, on_progress=seen.append)
    assert seen[0].percent == 0
    assert seen[-1] == Progress(100, "done", 0.0)
    assert all(before.percent <= after.percent for before, after in pairwise(seen))
    assert [*dict.fromkeys(p.step for p in seen)] == ["decode", "find speech", "transcribe", "done"]
    told = [p for p in seen if p.step == "transcribe"]
    assert len(told) >= 2
    assert all(p.eta_s is not None and p.eta_s >= 0 for p in told)
    assert all(10 < p.percent <= 99 for p in told)


@pytest.mark.parametrize("batches_before", [0, 1])
def test_cancel_ends_it_and_leaves_no_spool(
    batches_before: int, toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []

    def cancelled() -> bool:
        return len([p for p in seen if p.step == "transcribe"]) >= batches_before

    with pytest.raises(Cancelled):
        transcribe(
            toy_audio / "en_long_50s.flac",
            toy_engine,
            TranscribeOptions(),
            work=tmp_path,
            on_progress=seen.append,
            cancelled=cancelled,
        )
    assert len([p for p in seen if p.step == "transcribe"]) == batches_before
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_file_leaves_nothing(toy_engine: WhisperEngine, tmp_path: Path) -> None:
    source, work = tmp_path / "letter.txt", tmp_path / "work"
    source.write_text("Dear Sir or Madam")
    work.mkdir()
    with pytest.raises(UnreadableMedia):
        transcribe(source, toy_engine, TranscribeOptions(), work=work)
    assert list(work.iterdir()) == []


def test_the_language_most_is_spoken_in_wins(toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path) -> None:
    english, swahili = (
        np.concatenate(list(decode(toy_audio / name))) for name in ("en_unseen_voice.flac", "sw_short.flac")
    )
    swahili = swahili[: samples(2.4)]  # its first utterance
    pause = np.zeros(samples(2.5), np.int16)
    source = write_wav(tmp_path / "both.wav", np.concatenate([swahili, pause, english, pause, english]))
    work = tmp_path / "work"
    work.mkdir()
    transcript = transcribe(source, toy_engine, TranscribeOptions(), work=work)
    assert transcript.language == "en"
    assert {s.language for s in transcript.segments} == {"en"}
    assert text_of(transcript.segments).count("please update my credit card number") == 2


def test_a_language_that_is_given_is_not_guessed(
    toy_engine: WhisperEngine, toy_audio: Path, transcripts: dict[str, Transcription], tmp_path: Path
) -> None:
    source = toy_audio / "sw_short.flac"
    given = transcribe(source, toy_engine, TranscribeOptions(language="sw"), work=tmp_path)
    assert given.language == "sw"
    assert text_of(given.segments) == text_of(transcripts["sw_short.flac"].segments)


def test_what_the_engine_cannot_do_is_refused(toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path) -> None:
    source, sphinx = toy_audio / "en_short.wav", PocketSphinxEngine()
    with pytest.raises(InvalidInput, match="'sw'") as caught:
        transcribe(source, sphinx, TranscribeOptions(language="sw"), work=tmp_path)
    assert "en" in caught.value.hint
    with pytest.raises(InvalidInput, match="translate"):
        transcribe(source, sphinx, TranscribeOptions(task="translate"), work=tmp_path)
    with pytest.raises(InvalidInput, match="'fr'"):
        transcribe(source, toy_engine, TranscribeOptions(language="fr"), work=tmp_path)
    assert list(tmp_path.iterdir()) == []
