"""Settings: flags over variables over callreel.toml over presets over defaults, and mistakes named."""

from __future__ import annotations

from pathlib import Path

import pytest

from callreel import settings
from callreel.errors import InvalidInput
from callreel.settings import Models, Settings, load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_source_goes_over_the_next(folder: Path) -> None:
    assert load({"port": None}, environment={}).settings.port == 8125
    (folder / "callreel.toml").write_text('port = 1\nmodel = "tiny"\n[live]\nhop_s = 2.5\n')
    assert load({}, environment={}).settings.port == 1
    assert load({}, environment={"CALLREEL_PORT": "2"}).settings.port == 2
    loaded = load({"port": 3, "model": None}, environment={"CALLREEL_PORT": "2", "CALLREEL_LIVE_PORT": "7"})
    found = loaded.settings
    assert (found.port, found.live.hop_s, found.model, found.live.port) == (3, 2.5, "tiny", 7)
    assert {path: loaded.origins[path] for path in ("port", "live.hop_s", "live.port", "host")} == {
        "port": "--port",
        "live.hop_s": "callreel.toml",
        "live.port": "CALLREEL_LIVE_PORT",
        "host": "default",
    }


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ("port = 70000", "port"),
        ('[live]\nfsync = "sometimes"', "live.fsync"),
        ("[live]\nhop_s = 0.0", "live.hop_s"),
        ("[live]\nhopp_s = 1.0", "live.hopp_s"),
        ("[engines]\nthreads = 0", "engines.threads"),
        ("live = 3", "live"),
        ("[jobs.max_concurrent]\ntranscribe = -1", "jobs.max_concurrent"),
        ("[sources]\nallow_networks = ['10.0.0.0/99']", "sources.allow_networks"),
    ],
)
def test_a_value_that_cannot_be_is_named(folder: Path, toml: str, name: str) -> None:
    (folder / "callreel.toml").write_text(toml)
    with pytest.raises(InvalidInput, match=f"'{name}'"):
        load({}, environment={})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("CALLREEL_JOB_QUEUE_LIMIT", "CALLREEL_JOBS_QUEUE_LIMIT"), ("CALLREEL_MODLE", "CALLREEL_MODEL")],
)
def test_an_unknown_variable_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(InvalidInput, match=name) as refused:
        load({}, environment={name: "1"})
    assert f"Did you mean {nearest}?" in refused.value.hint


def test_an_unknown_key_names_the_nearest(folder: Path) -> None:
    (folder / "callreel.toml").write_text("max_filesize = 1")
    with pytest.raises(InvalidInput, match="'max_filesize'") as refused:
        load({}, environment={})
    assert "Did you mean max_file_size?" in refused.value.hint


def test_variables_of_the_suite_and_of_others_are_no_settings() -> None:
    load({}, environment={"CALLREEL_TEST_REQUIRE": "all", "HOME": "/"})


def test_a_variable_that_cannot_be_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"'jobs.queue_limit' \(CALLREEL_JOBS_QUEUE_LIMIT\)"):
        load({}, environment={"CALLREEL_JOBS_QUEUE_LIMIT": "-1"})


def test_a_flag_is_named_as_it_was_written() -> None:
    with pytest.raises(InvalidInput, match=r"'final.profile' \(--profile\)"):
        load({"final.profile": "best"}, environment={}, names={"final.profile": "--profile"})
    with pytest.raises(InvalidInput, match=r"'live.port' \(--live-port\)"):
        load({"live.port": -1}, environment={})


@pytest.mark.parametrize("written", ["transcribe=1, export=2", '{"transcribe": 1, "export": 2}'])
def test_a_table_may_be_written_in_two_ways(written: str) -> None:
    found = load({}, environment={"CALLREEL_JOBS_MAX_CONCURRENT": written}).settings
    assert found.jobs.max_concurrent == {"transcribe": 1, "export": 2}


@pytest.mark.parametrize("written", ["transcribe", "3", "transcribe=many", '{"transcribe": 1.5}', '{"transcribe": 1'])
def test_a_table_that_cannot_be_says_how_one_is_written(written: str) -> None:
    with pytest.raises(InvalidInput, match=r"'jobs.max_concurrent' .*transcribe=3,export=1"):
        load({}, environment={"CALLREEL_JOBS_MAX_CONCURRENT": written})


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "callreel.toml").write_text("port 8125")
    with pytest.raises(InvalidInput, match=r"callreel\.toml cannot be read"):
        load({}, environment={})
    with pytest.raises(InvalidInput, match=r"There is no .*other\.toml"):
        load({}, environment={"CALLREEL_CONFIG": "other.toml"})


def test_variables_write_sizes_lists_and_tables_as_people_do() -> None:
    found = load(
        {},
        environment={
            "CALLREEL_MAX_FILE_SIZE": "1.5 GB",
            "CALLREEL_JOBS_MEMORY": "2GiB",
            "CALLREEL_SOURCES_ALLOW_NETWORKS": "10.0.0.0/8, 192.168.0.0/16",
            "CALLREEL_JOBS_MAX_CONCURRENT": "transcribe=2,export=1",
            "CALLREEL_LOG_JSON": "true",
        },
    ).settings
    assert (found.max_file_size, found.jobs.memory) == (1_500_000_000, 2 << 30)
    assert found.sources.allow_networks == ("10.0.0.0/8", "192.168.0.0/16")
    assert found.jobs.max_concurrent == {"transcribe": 2, "export": 1}
    assert found.log.json_


def test_a_preset_stands_above_defaults_and_below_all_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_has_gpu", lambda: False)
    (folder / "callreel.toml").write_text("[batch]\nmax = 3\n")
    loaded = load({"preset": "low-latency"}, environment={})
    assert loaded.settings.final.profile == "fast" and loaded.settings.live.model == "tiny"
    assert loaded.settings.batch.max == 3 and loaded.origins["final.profile"] == "preset low-latency"
    asked = load({"preset": "low-latency", "model": "medium"}, environment={}).settings
    assert (asked.model, asked.live.model, asked.final.model) == ("medium", None, None)
    monkeypatch.setattr(settings, "_has_gpu", lambda: True)
    assert load({"preset": "balanced"}, environment={}).settings.final.model == "large-v3"
    with pytest.raises(InvalidInput, match="'preset'"):
        load({"preset": "fastest"}, environment={})


def test_every_preset_is_made_of_settings() -> None:
    known = {path for path, _ in settings.fields()}
    for preset in (*settings.PRESETS.values(), *settings.GPU_PRESETS.values()):
        assert set(preset) <= known


def test_models_lie_in_the_data_folder_unless_said_otherwise() -> None:
    assert Settings(data_dir=Path("/d")).models_folder == Path("/d/models")
    assert Settings(data_dir=Path("/d"), models=Models(dir=Path("/m"))).models_folder == Path("/m")


def test_every_setting_has_a_description_and_a_value() -> None:
    assert [path for path, field in settings.fields() if not field.description] == []
    assert all(settings.value_of(Settings(), path) is not ... for path, _ in settings.fields())
