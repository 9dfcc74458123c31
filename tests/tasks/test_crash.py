"""kill -9 of each process in turn, under a job and a stream: accepted words are stored once, no process stays."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from callreel.measure import crash
from callreel.measure.harness import play


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_whatever_dies_nothing_accepted_is_lost_or_doubled(
    toy_model: Path, toy_audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash, "play", partial(play, pace=2.0))
    monkeypatch.setattr(crash, "KILL_AFTER_S", 2.0)
    result = crash.run(toy_audio, toy_model, recordings=("en_digits.flac",))
    assert [r["killed"] for r in result["results"]] == ["serve", "live", "batch", "job"]
    for r in result["results"]:
        assert r["words"] >= (4 if r["killed"] == "serve" else 12)
        assert r["lost"] == r["doubled"] == 0, r
        assert r["left_over"] == 0 and r["job_same_text"], r
    assert [r["job_attempts"] for r in result["results"]] == [2, 1, 1, 2]
