"""Settings: flags over variables over callreel.toml over defaults, and mistakes named."""

from __future__ import annotations

from pathlib import Path

import pytest

from callreel.cli.options import chosen
from callreel.errors import InvalidInput
from callreel.settings import Settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_source_goes_over_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen({"port": None}).port == 8125
    (folder / "callreel.toml").write_text('port = 1\nhop_s = 2.5\nmodel = "tiny"\n')
    assert chosen({"port": None}).port == 1
    monkeypatch.setenv("CALLREEL_PORT", "2")
    assert chosen({"port": None}).port == 2
    settings = chosen({"port": 3, "model": None})
    assert (settings.port, settings.hop_s, settings.model, settings.live_port) == (3, 2.5, "tiny", 9090)


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ("port = 70000", "port"),
        ('fsync = "sometimes"', "fsync"),
        ("hop_s = 0.0", "hop_s"),
        ("hopp_s = 1.0", "hopp_s"),
        ("engine_threads = 0", "engine_threads"),
    ],
)
def test_a_value_that_cannot_be_is_named(folder: Path, toml: str, name: str) -> None:
    (folder / "callreel.toml").write_text(toml)
    with pytest.raises(InvalidInput, match=f"'{name}'"):
        chosen({})


def test_a_variable_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLREEL_JOB_SLOTS", "-1")
    with pytest.raises(InvalidInput, match="'job_slots'"):
        chosen({})


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "callreel.toml").write_text("port 8125")
    with pytest.raises(InvalidInput, match=r"callreel\.toml cannot be read"):
        chosen({})


def test_models_lie_in_the_data_folder_unless_said_otherwise() -> None:
    assert Settings(data=Path("/d")).models_folder == Path("/d/models")
    assert Settings(data=Path("/d"), models=Path("/m")).models_folder == Path("/m")


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
