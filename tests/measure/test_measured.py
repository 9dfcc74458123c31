from __future__ import annotations

from pathlib import Path

import pytest

from callreel.measure.measured import remember, speeds


def test_the_last_measure_of_each_model_is_kept(tmp_path: Path) -> None:
    assert speeds(tmp_path) == {}
    remember(tmp_path / "new", "base", 31.25, 2)
    remember(tmp_path / "new", "tiny", 80.0, 2)
    remember(tmp_path / "new", "base", 33.0, 4)
    known = speeds(tmp_path / "new")
    assert {name: (speed.rtfx, speed.threads) for name, speed in known.items()} == {
        "base": (33.0, 4),
        "tiny": (80.0, 2),
    }
    assert known["base"].at.endswith("Z")
    assert [path.name for path in (tmp_path / "new" / "bench").iterdir()] == ["models.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"base": {"rtfx": "fast"}}'])
def test_what_cannot_be_read_is_nothing_and_is_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "models.json").write_text(content)
    assert speeds(tmp_path) == {}
    remember(tmp_path, "base", 1.0, 1)
    assert list(speeds(tmp_path)) == ["base"]
