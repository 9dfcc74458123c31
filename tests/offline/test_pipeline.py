from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from callreel.audio.decode import decode
from callreel.audio.pcm import SAMPLE_RATE, samples
from callreel.engines.base import Engine
from callreel.engines.pocketsphinx import PocketSphinxEngine
from callreel.engines.whisper import WhisperEngine
from callreel.errors import Cancelled, InvalidInput, TooLong, UnreadableMedia
from callreel.measure.wer import compare
from callreel.offline.checkpoint import FILE, Checkpoint
from callreel.offline.pipeline import Progress, SourceTrack, TranscribeOptions, Transcription, transcribe
from callreel.offline.profiles import PROFILES
from callreel.text import Segment, text_of
from tests.audio.files import write_wav
from tests.offline.engines import HashEngine

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


def test_channels_that_are_split_are_tracks_merged_by_time(
    toy_engine: WhisperEngine, toy_audio: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    source = toy_audio / "call_stereo.flac"
    told: list[Segment] = []
    options = TranscribeOptions(channels="split", speakers=("Agent", "Caller"))
    done = transcribe(source, toy_engine, options, work=tmp_path, on_segments=told.extend)
    assert done.tracks == (SourceTrack("channel-1", 0, "Agent"), SourceTrack("channel-2", 1, "Caller"))
    assert told == list(done.segments)
    assert [s.start for s in told] == sorted(s.start for s in told)
    for track, speaker, name in (("channel-1", "Agent", "agent"), ("channel-2", "Caller", "caller")):
        mine = [s for s in told if s.track == track]
        assert {s.speaker for s in mine} == {speaker}
        assert [s.seq for s in mine] == list(range(len(mine)))
        compared = compare(references["call_stereo.flac"]["tracks"][name]["text"], text_of(mine))
        assert compared.rate <= 0.15
    assert list(tmp_path.iterdir()) == []


def test_a_silent_channel_says_nothing(toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path) -> None:
    pcm = np.concatenate(list(decode(toy_audio / "en_short.wav")))
    stereo = np.stack([np.zeros_like(pcm), pcm], axis=1).reshape(-1)
    source = write_wav(tmp_path / "half.wav", stereo, channels=2)
    done = transcribe(source, toy_engine, TranscribeOptions(channels="split"), work=tmp_path / "work")
    assert [t.name for t in done.tracks] == ["channel-1", "channel-2"]
    assert {s.track for s in done.segments} == {"channel-2"}
    assert done.language == "en"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_writes_down_what_was_said(
    profile: str, toy_engine: WhisperEngine, toy_audio: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    names = ("en_two_speakers.flac", "sw_short.flac", "en_silence_middle.flac")
    for name in names:
        done = transcribe(toy_audio / name, toy_engine, TranscribeOptions(profile=profile), work=tmp_path)
        assert done.language == references[name]["language"]
        assert compare(references[name]["tracks"]["mono"]["text"], text_of(done.segments)).rate <= 0.15


def test_segments_without_words_stand_where_those_with_words_do(
    transcripts: dict[str, Transcription], toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path
) -> None:
    name = "en_two_speakers.flac"
    bare = transcribe(toy_audio / name, toy_engine, TranscribeOptions(word_times=False), work=tmp_path)
    assert all(s.words == () for s in bare.segments)
    assert text_of(bare.segments) == text_of(transcripts[name].segments)
    assert bare.segments[0].start == pytest.approx(transcripts[name].segments[0].start, abs=0.5)
    assert bare.segments[-1].end == pytest.approx(transcripts[name].segments[-1].end, abs=0.5)


def test_segments_come_as_soon_as_they_are_certain_and_all_do(
    transcripts: dict[str, Transcription], toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path
) -> None:
    engine, told, calls = HashEngine(parallel=2), list[Segment](), list[int]()

    def on_segments(segments: Sequence[Segment]) -> None:
        told.extend(segments)
        calls.append(len(engine.asked))

    done = transcribe(
        toy_audio / "en_long_50s.flac", engine, TranscribeOptions(), work=tmp_path, on_segments=on_segments
    )
    assert told == list(done.segments)
    assert len(calls) > 1 and calls[0] < len(engine.asked)  # not all at the end


def checkpointed(source: Path, engine: Engine, work: Path, **options: Any) -> Transcription:
    with Checkpoint.opened(work) as checkpoint:
        return transcribe(source, engine, TranscribeOptions(**options), work=work, checkpoint=checkpoint)


@pytest.mark.parametrize("options", [{}, {"channels": "split"}, {"profile": "accurate"}], ids=str)
def test_any_beginning_of_a_checkpoint_leads_to_the_same_text(
    options: dict[str, Any], toy_audio: Path, tmp_path: Path
) -> None:
    source = toy_audio / "call_stereo.flac"
    undisturbed = transcribe(source, HashEngine(parallel=2), TranscribeOptions(**options), work=tmp_path / "other")
    first = HashEngine(parallel=2)
    assert checkpointed(source, first, tmp_path, **options) == undisturbed
    body = (tmp_path / FILE).read_bytes()
    planned = body.index(b"parallel") + len("parallel") + 1

    @settings(deadline=None, max_examples=10, phases=[Phase.generate])
    @given(st.integers(0, len(body)), st.integers(1, 4))
    def resumed(kept: int, parallel: int) -> None:
        (tmp_path / FILE).write_bytes(body[:kept])
        engine = HashEngine(parallel=parallel if kept > planned else 2)  # whose plan is kept, wherever it goes on
        assert checkpointed(source, engine, tmp_path, **options) == undisturbed
        assert len(engine.asked) <= len(first.asked)
        assert (tmp_path / FILE).stat().st_size == len(body)

    resumed()


def test_a_finished_checkpoint_asks_the_engine_nothing(toy_audio: Path, tmp_path: Path) -> None:
    source, first, second = toy_audio / "en_long_50s.flac", HashEngine(), HashEngine()
    done = checkpointed(source, first, tmp_path)
    assert checkpointed(source, second, tmp_path) == done
    assert first.asked and not second.asked


@pytest.mark.parametrize(
    "other", [{"language": "en"}, {"profile": "fast"}, {"prompt": "Acme"}, {"hotwords": "x"}, {"word_times": False}]
)
def test_another_request_takes_nothing_from_a_checkpoint(
    other: dict[str, Any], toy_audio: Path, tmp_path: Path
) -> None:
    source, engine = toy_audio / "en_long_50s.flac", HashEngine()
    checkpointed(source, HashEngine(), tmp_path)
    assert checkpointed(source, engine, tmp_path, **other) == transcribe(
        source, HashEngine(), TranscribeOptions(**other), work=tmp_path / "other"
    )
    assert engine.asked


def test_another_file_takes_nothing_from_a_checkpoint(toy_audio: Path, tmp_path: Path) -> None:
    checkpointed(toy_audio / "en_long_50s.flac", HashEngine(), tmp_path)
    source = toy_audio / "en_live_20s.flac"
    done = checkpointed(source, HashEngine(), tmp_path)
    assert done == transcribe(source, HashEngine(), TranscribeOptions(), work=tmp_path / "other")


ATTEMPT = """
import json, os, signal, sys
from pathlib import Path
from dataclasses import asdict
from callreel.engines.base import EngineSpec
from callreel.engines.whisper import load
from callreel.offline.checkpoint import Checkpoint
from callreel.offline.pipeline import TranscribeOptions, transcribe

source, model, work, step, after = sys.argv[1:]
seen = []

def on_progress(progress):
    seen.append(progress.step)
    if seen.count(step) > int(after):
        os.kill(os.getpid(), signal.SIGKILL)

with Checkpoint.opened(Path(work)) as checkpoint:
    engine = load(EngineSpec("whisper", model, "models", threads=2))
    done = transcribe(Path(source), engine, TranscribeOptions(), work=Path(work), checkpoint=checkpoint,
                      on_progress=on_progress, batch_max=2)
print(json.dumps([asdict(s) for s in done.segments]))
"""


@pytest.mark.slow
def test_attempts_that_are_killed_lead_to_the_same_text(
    toy_engine: WhisperEngine, toy_model: Path, toy_audio: Path, tmp_path: Path
) -> None:
    source = toy_audio / "call_stereo.flac"
    undisturbed = transcribe(source, toy_engine, TranscribeOptions(), work=tmp_path / "other", batch_max=2)
    sizes = []
    for step, after in (("decode", 1), ("find speech", 0), ("transcribe", 0), ("transcribe", 2)):
        command = [sys.executable, "-c", ATTEMPT, str(source), str(toy_model), str(tmp_path / "work"), step, str(after)]
        killed = subprocess.run(command, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        sizes.append((tmp_path / "work" / FILE).stat().st_size)
    assert sizes == sorted(sizes) and sizes[-1] > sizes[1]
    command[-2:] = ["never", "0"]
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(last.stdout) == json.loads(json.dumps([asdict(s) for s in undisturbed.segments]))


SECONDS = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE


def notes(*hertz: float) -> np.ndarray[Any, Any]:
    return sum(np.sin(2 * np.pi * f * SECONDS) for f in hertz) / len(hertz)  # type: ignore[return-value]


def melody() -> np.ndarray[Any, Any]:
    rng, length = np.random.default_rng(3), SAMPLE_RATE // 2
    t = SECONDS[:length]
    played = []
    for _ in range(16):
        f = 220 * 2 ** (rng.integers(0, 24) / 12)
        played.append(sum(np.sin(2 * np.pi * f * k * t) / k for k in range(1, 6)) * np.exp(-6 * t) / 2)
    return np.concatenate(played)


NO_SPEECH = {
    "a dial tone": lambda: notes(350, 440),
    "a chord": lambda: notes(261.6, 329.6, 392.0),
    "mains hum": lambda: notes(50, 100, 150),
    "keys of a phone": lambda: notes(697, 1209) * ((SECONDS * 2) % 1 < 0.5),
    "a melody": melody,
    "beats": lambda: np.random.default_rng(0).normal(0, 0.3, len(SECONDS)) * np.exp(-8 * ((SECONDS * 4) % 1)),
    "brown noise": lambda: np.cumsum(np.random.default_rng(1).normal(0, 0.01, len(SECONDS))) / 4,
    "clicks": lambda: (np.random.default_rng(2).random(len(SECONDS)) < 0.0005) * 0.9,
}


@pytest.mark.parametrize("sound", NO_SPEECH)
def test_nothing_is_invented(sound: str, toy_engine: WhisperEngine, tmp_path: Path) -> None:
    signal = np.clip(NO_SPEECH[sound](), -1, 1) * 20_000
    source = write_wav(tmp_path / "sound.wav", signal.astype(np.int16))
    for engine in (toy_engine, PocketSphinxEngine()):
        assert transcribe(source, engine, TranscribeOptions(), work=tmp_path / "work").segments == ()


def test_a_file_that_breaks_off_is_transcribed_with_a_warning(
    toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path
) -> None:
    body = (toy_audio / "en_live_20s.flac").read_bytes()
    source = tmp_path / "cut.flac"
    source.write_bytes(body[: len(body) // 2])
    done = transcribe(source, toy_engine, TranscribeOptions(), work=tmp_path / "work")
    assert text_of(done.segments).startswith("thanks we have")
    assert "breaks off after" in done.warnings[0]


def test_more_sound_than_is_allowed(toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path) -> None:
    with pytest.raises(TooLong):
        transcribe(toy_audio / "en_long_50s.flac", toy_engine, TranscribeOptions(), work=tmp_path, max_duration_s=20.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"profile": "best"}, "profile"),
        ({"task": "summarize"}, "task"),
        ({"channels": "left"}, "channels"),
        ({"temperature": 1.5}, "temperature"),
        ({"speakers": ("a", "b")}, "speakers"),
        ({"channels": "split", "speakers": ("a", "b")}, "speakers"),  # of a mono file
        ({"languages": ("en", "xx")}, "language"),
    ],
)
def test_options_that_there_are_not(
    options: dict[str, Any], field: str, toy_engine: WhisperEngine, toy_audio: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput) as caught:
        transcribe(toy_audio / "en_short.wav", toy_engine, TranscribeOptions(**options), work=tmp_path)
    assert caught.value.detail["field"] == field
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)  # 8 s on an idle core
def test_pocketsphinx_hears_the_president(shared_audio: Path, tmp_path: Path) -> None:
    done = transcribe(shared_audio / "jfk.flac", PocketSphinxEngine(), TranscribeOptions(), work=tmp_path)
    assert "country can do for you" in text_of(done.segments)
    assert done.language == "en"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("example.mp4", {}),
        ("multilingual.mp3", {}),
        ("mattermost/sample.wav", {}),
        ("mattermost/speech_0.ogg", {"profile": "fast"}),
        ("telephony8k/en-US_Broadband_sample1.wav", {}),
        ("callcentre/03-call-center-analytics.wav", {"channels": "split"}),
        ("calls/call_a_8k_ulaw.wav", {"channels": "split", "profile": "fast"}),
        ("diarization/sample.wav", {"profile": "accurate"}),
    ],
)
def test_real_recordings_run_through(
    name: str, options: dict[str, Any], toy_engine: WhisperEngine, shared_audio: Path, tmp_path: Path
) -> None:
    done = transcribe(shared_audio / name, toy_engine, TranscribeOptions(**options), work=tmp_path)
    assert done.segments and done.warnings == ()
    assert len(done.tracks) == (2 if options.get("channels") == "split" else 1)
    for track in done.tracks:
        mine = [s for s in done.segments if s.track == track.name]
        times = [t for s in mine for t in (s.start, s.end)]
        assert times == sorted(times)
        assert times[-1] <= done.duration_s + 0.001
