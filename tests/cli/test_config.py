"""`callreel config`: what is in force, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from callreel import settings
from callreel.cli import main
from tests.cli.running import callreel, refused


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "callreel.toml").write_text('[live]\nhop_s = 1.5\n[openai]\nkey = "sk-very-secret"\n')
    monkeypatch.setenv("CALLREEL_PORT", "8126")
    return tmp_path


def shown(*words: str) -> str:
    ended = CliRunner().invoke(main, ["config", *words])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_the_table_has_every_setting_and_where_it_came_from() -> None:
    lines = shown("--host", "::1").splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert list(rows) == [path for path, _ in settings.fields()]
    assert rows["port"] == ["8126", "CALLREEL_PORT"] and rows["host"] == ["::1", "--host"]
    assert rows["live.hop_s"] == ["1.5", "callreel.toml"] and rows["live.model"] == ["default"]
    assert rows["jobs.max_concurrent"] == ["transcribe=3,", "export=3", "default"]


@pytest.mark.parametrize("format", ["table", "toml", "json"])
def test_secrets_are_masked(format: str) -> None:
    said = shown("--format", format)
    assert "very-secret" not in said and "key" in said


def test_json_has_values_as_they_are() -> None:
    said = json.loads(shown("--format", "json", "--preset", "throughput"))
    assert said["live.hop_s"] == {"value": 1.5, "from": "callreel.toml"}
    assert said["jobs.max_concurrent"]["value"] == {"transcribe": 3, "export": 3}
    assert said["batch.min"] == {"value": 4, "from": "preset throughput"}
    assert said["openai.key"] == {"value": "********", "from": "callreel.toml"}


def test_toml_is_a_file_of_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"model": 'a "b"\\c', "preset": "throughput"}
    monkeypatch.setenv("CALLREEL_SOURCES_ALLOW_NETWORKS", "10.0.0.0/8,fd00::/8")
    before = settings.load(flags).settings
    said = shown("--format", "toml", "--model", flags["model"], "--preset", "throughput")
    (folder / "callreel.toml").write_text(said + '[openai]\nkey = "sk-very-secret"\n' * ("[openai]" not in said))
    monkeypatch.setenv("CALLREEL_OPENAI_KEY", "sk-very-secret")
    assert settings.load({}).settings == before


def test_an_unknown_key_names_the_nearest(folder: Path) -> None:
    (folder / "callreel.toml").write_text("prot = 3\n")
    what, hint = refused(callreel("config", cwd=folder))
    assert "'prot'" in what and "Did you mean port?" in hint
