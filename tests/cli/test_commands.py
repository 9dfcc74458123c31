"""The command line as a person uses it: a process, its output, its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from callreel.engines.catalogue import WEAK
from callreel.measure.wer import compare
from tests.cli.running import callreel, inside, refused


def test_transcribe_writes_beside_its_input(
    toy_model: Path, toy_audio: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("en_short.wav", "sw_short.flac"):
        shutil.copy(toy_audio / name, tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"no sound" * 99)
    files = [tmp_path / name for name in ("en_short.wav", "broken.wav", "sw_short.flac")]
    done = callreel("transcribe", *files, "--engine", "whisper", "--model", toy_model, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "", done.stderr  # for the one that is no sound
    assert "broken.wav is not a media file" in done.stderr and "1 of 3 files" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["broken.wav", "en_short.txt", "en_short.wav", "sw_short.flac", "sw_short.txt"]
    )
    for stem in ("en_short.wav", "sw_short.flac"):
        (track,) = references[stem]["tracks"].values()
        assert (tmp_path / stem).with_suffix(".txt").read_text().split() == track["text"].split()


def test_transcribe_writes_json_with_words_and_times_on_standard_output(
    toy_model: Path, toy_audio: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    flags = ("--engine", "whisper", "--model", toy_model, "--format", "json", "--output", "-")
    done = callreel("transcribe", toy_audio / "en_short.wav", toy_audio / "sw_short.flac", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    english, swahili = (json.loads(line) for line in done.stdout.splitlines())
    assert english["text"] == references["en_short.wav"]["tracks"]["mono"]["text"]
    assert (english["language"], swahili["language"]) == ("en", "sw")
    assert (english["engine"], english["model"]) == ("whisper", "whisper-toy")
    words = [word for segment in english["segments"] for word in segment["words"]]
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= 3.61
    assert list(tmp_path.iterdir()) == []  # nothing is stored


def test_each_channel_is_a_speaker(toy_model: Path, toy_audio: Path, references: dict[str, Any]) -> None:
    flags = ("--engine", "whisper", "--model", toy_model, "-f", "vtt", "-o", "-", "--channels", "split")
    done = callreel("transcribe", toy_audio / "call_stereo.flac", *flags, "--speakers", "agent,caller")
    assert done.returncode == 0, done.stderr
    said = {"agent": "", "caller": ""}
    for cue in done.stdout.split("\n\n")[1:]:
        _, first, *rest = cue.splitlines()
        name, text = first.removeprefix("<v ").split(">", 1)
        said[name] += " ".join([text, *rest, ""])
    for name, track in zip(said, references["call_stereo.flac"]["tracks"].values(), strict=True):
        assert compare(track["text"], said[name]).errors <= 6, (name, said[name])


def test_where_transcripts_cannot_go_is_said_before_any_work(toy_audio: Path, tmp_path: Path) -> None:
    here = tmp_path / "a.txt"
    shutil.copy(toy_audio / "en_short.wav", here)
    what, _ = refused(callreel("transcribe", here))
    assert "is to be read and written" in what
    what, hint = refused(callreel("transcribe", here, toy_audio / "en_short.wav", "-o", tmp_path / "one.txt"))
    assert "one file for 2" in what and "folder" in hint
    (tmp_path / "b").mkdir()
    shutil.copy(here, tmp_path / "b" / "a.wav")
    shutil.copy(here, tmp_path / "a.wav")
    what, _ = refused(callreel("transcribe", tmp_path / "a.wav", tmp_path / "b" / "a.wav", "-o", tmp_path / "b"))
    assert "Two inputs would be written" in what


def test_transcribe_with_pocketsphinx_says_what_its_text_is_worth(toy_audio: Path) -> None:
    flags = ("--engine", "pocketsphinx", "--format", "json", "-o", "-")
    done = callreel("transcribe", toy_audio / "en_short.wav", *flags)
    assert done.returncode == 0 and WEAK in done.stderr
    assert WEAK in json.loads(done.stdout)["warnings"]


def test_a_preset_chooses_the_model_and_a_flag_goes_over_it(
    toy_model: Path, toy_audio: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    words = ("transcribe", toy_audio / "en_short.wav", "--engine", "whisper", "--preset", "throughput", "-o", "-")
    none = {"CALLREEL_DATA_DIR": str(tmp_path), "CALLREEL_MODELS_DOWNLOAD": "false"}
    what, _ = refused(inside(*words, "--preset", "balanced", **none))
    assert "'small'" in what or "'large-v3'" in what
    done = inside(*words, "--model", toy_model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == references["en_short.wav"]["tracks"]["mono"]["text"].split()


def test_what_cannot_be_done_is_said_in_a_line_and_a_hint(toy_model: Path, toy_audio: Path, tmp_path: Path) -> None:
    file, toy = toy_audio / "en_short.wav", ("--engine", "whisper", "--model", toy_model)
    what, hint = refused(callreel("transcribe", file, "--engine", "magic"))
    assert what == "callreel: There is no engine called 'magic'" and "whisper, pocketsphinx" in hint
    what, hint = refused(callreel("transcribe", file, "--format", "pdf"))
    assert "'pdf'" in what and hint.strip().startswith("Formats: txt, ")
    what, _ = refused(callreel("transcribe", file, *toy, CALLREEL_PORT="high"))
    assert "The setting 'port' (CALLREEL_PORT) is not right" in what
    what, _ = refused(inside("transcribe", file, *toy, "--profile", "best"))
    assert "The setting 'final.profile' (--profile) is not right" in what and "'balanced'" in what
    what, hint = refused(callreel("transcribe", file, *toy, "--language", "de"))[-2:]
    assert "no language 'de'" in what and "en, sw" in hint
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(b"no sound" * 99)
    what, hint = refused(callreel("transcribe", noise, *toy))[-2:]
    assert "noise.mp3 is not a media file" in what and "Check that the file plays" in hint
    (tmp_path / "callreel.toml").write_text("port = ")
    what, _ = refused(callreel("transcribe", file, cwd=tmp_path))
    assert what.startswith("callreel: callreel.toml cannot be read")
