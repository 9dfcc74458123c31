"""What was measured of a model is kept for `callreel models`: the last word on each."""

from __future__ import annotations

from pathlib import Path

from callreel.measure.measured import remember, speeds


def test_the_last_measure_of_each_model_is_known(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert speeds(data) == {}
    remember(data, "base", 30.04, threads=2)
    remember(data, "tiny", 61, threads=2)
    remember(data, "base", 15.26, threads=1)
    found = speeds(data)
    assert {model: (speed.rtfx, speed.threads) for model, speed in found.items()} == {
        "base": (15.3, 1),
        "tiny": (61, 2),
    }
    assert [path.name for path in (data / "bench").iterdir()] == ["models.json"]


def test_a_file_that_cannot_be_read_is_as_if_nothing_was_measured(tmp_path: Path) -> None:
    remember(tmp_path, "base", 1, threads=1)
    (tmp_path / "bench" / "models.json").write_text("{")
    assert speeds(tmp_path) == {}
