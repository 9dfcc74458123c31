"""`callreel bench` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from callreel.cli import main
from callreel.cli.bench import bench
from callreel.cli.results import Listed


def test_the_toy_model_on_a_recording(toy_model: Path, toy_audio: Path, tmp_path: Path) -> None:
    words = [str(toy_audio / "en_short.wav"), "--models", str(toy_model), "--engine", "whisper", "--threads", "1,2"]
    done = CliRunner().invoke(main, ["bench", *words, "--profile", "fast", "--data-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "without word times" not in done.stdout and len(done.stdout.splitlines()) == 4
    table = json.loads((tmp_path / "bench" / "table.json").read_text())
    assert [row["threads"] for row in table["rows"]] == [1, 2]
    assert table["machine"]["cores"] and table["command"][0] == "callreel"
    assert list(json.loads((tmp_path / "bench" / "models.json").read_text())) == [str(toy_model)]


def test_synthetic_weights_need_no_file_and_are_not_remembered(tmp_path: Path) -> None:
    words = ["--synthetic", "tiny", "--tokens", "3", "--minutes", "0.1", "--threads", "1", "--no-word-times"]
    done = CliRunner().invoke(
        main, ["bench", *words, "--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "deep" / "x.json")]
    )
    assert done.exit_code == 0, done.output
    (row,) = json.loads((tmp_path / "deep" / "x.json").read_text())["rows"]
    assert (row["model"], row["synthetic"], row["audio"]) == ("tiny", True, "made-up speech, 0.1 min")
    assert row["tokens"] == 4 * row["windows"]  # the words, and the time before them
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("words", [["--models", ""], ["--threads", "0"], ["--synthetic", "huge"], ["nowhere.wav"]])
def test_mistakes_of_use(words: list[str]) -> None:
    assert CliRunner().invoke(bench, words).exit_code == 2


def test_every_figure_has_its_command() -> None:
    shown = CliRunner().invoke(bench, ["--help"])
    assert shown.exit_code == 0
    for name in ("table", "rtfx", "overhead", "long-file", "upload", "api", "start", "resume", "crash", "live-policy"):
        assert f"  {name} " in shown.stdout


def test_lists() -> None:
    kind = Listed(click.INT)
    assert kind.convert("1, 2,", None, None) == (1, 2)
    assert kind.convert((3,), None, None) == (3,)
    with pytest.raises(click.BadParameter):
        kind.convert("1,x", None, None)
    with pytest.raises(click.BadParameter):
        kind.convert(" , ", None, None)
