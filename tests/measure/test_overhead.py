from __future__ import annotations

from pathlib import Path

import pytest

from callreel.measure import overhead


def test_both_sides_hear_the_same(audio: Path, toy: Path) -> None:
    result = overhead.run(model=toy, audio=audio / "en_long_50s.flac", minutes=0.4, iterations=2, threads=1)
    assert set(result["wall_s"]) == set(result["words"]) == {"callreel", "faster-whisper"}
    assert all(len(walls) == 2 for walls in result["wall_s"].values())
    medians = result["wall_s_median"]
    assert result["ratio_of_medians"] == pytest.approx(medians["callreel"] / medians["faster-whisper"], abs=0.001)
    assert result["audio_s"] == pytest.approx(24.0)
    assert min(result["words"].values()) > 20
    shown = overhead.report(result)
    assert "en_long_50s.flac" in shown and "target 1.05" in shown and "faster-whisper" in shown
