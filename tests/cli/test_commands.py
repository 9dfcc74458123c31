"""The command line as a person uses it: a process, its output, its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from callreel.engines.pocketsphinx import WARNING
from tests.cli.running import callreel, refused


def test_transcribe_writes_text_on_standard_output(
    toy_model: Path, toy_audio: Path, references: dict[str, Any]
) -> None:
    done = callreel("transcribe", toy_audio / "en_short.wav", "--engine", "whisper", "--model", toy_model)
    assert done.returncode == 0, done.stderr
    assert done.stdout == references["en_short.wav"]["tracks"]["mono"]["text"] + "\n"


def test_transcribe_writes_json_with_words_and_times(
    toy_model: Path, toy_audio: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    flags = ("--engine", "whisper", "--model", toy_model, "--format", "json")
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


def test_transcribe_with_pocketsphinx_says_what_its_text_is_worth(toy_audio: Path) -> None:
    done = callreel("transcribe", toy_audio / "en_short.wav", "--engine", "pocketsphinx", "--format", "json")
    assert done.returncode == 0 and WARNING in done.stderr
    assert WARNING in json.loads(done.stdout)["warnings"]


def test_what_cannot_be_done_is_said_in_a_line_and_a_hint(toy_model: Path, toy_audio: Path, tmp_path: Path) -> None:
    file, toy = toy_audio / "en_short.wav", ("--engine", "whisper", "--model", toy_model)
    what, hint = refused(callreel("transcribe", file, "--engine", "magic"))
    assert what == "callreel: There is no engine called 'magic'" and "whisper, pocketsphinx" in hint
    what, hint = refused(callreel("transcribe", file, "--format", "pdf"))
    assert "'pdf'" in what and hint.strip().startswith("Formats: txt, ")
    what, _ = refused(callreel("transcribe", file, *toy, CALLREEL_PORT="high"))
    assert "The setting 'port' (CALLREEL_PORT) is not right" in what
    what, hint = refused(callreel("transcribe", file, *toy, "--language", "de"))[-2:]
    assert "no language 'de'" in what and "en, sw" in hint
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(b"no sound" * 99)
    assert "noise.mp3 is not a media file" in refused(callreel("transcribe", noise, *toy))[-1]
    (tmp_path / "callreel.toml").write_text("port = ")
    (what,) = refused(callreel("transcribe", file, cwd=tmp_path))
    assert what.startswith("callreel: callreel.toml cannot be read")
