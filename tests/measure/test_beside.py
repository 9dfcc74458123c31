from __future__ import annotations

from pathlib import Path

import pytest

from callreel.engines.base import EngineSpec
from callreel.engines.whisper import RELEASED_MIN_WINDOW_S
from callreel.errors import ModelMissing
from callreel.measure import beside, oracle
from callreel.measure.beside import Stretch, _Look, _result, _rtfx
from callreel.measure.harness import MeasureFailed
from callreel.measure.latency import Spoken


def stretch(*finals: float | None, errors: int = 0) -> Stretch:
    return Stretch(Spoken(finals, finals, 10, errors, 0), job_rtfx=4.0, batch_cores=0.9, live_cores=0.5)


def test_ratios_are_of_pairs_and_of_all_together() -> None:
    result = _result(
        [stretch(0.5, 0.5), stretch(0.4, 0.4), stretch(1.0, 1.0)],
        [stretch(0.5, 0.5), stretch(0.6, 0.6, errors=3), stretch(1.2, None)],
    )
    assert result["ratio_of_pairs"] == [1.0, 1.5, 1.2]
    assert result["ratio_median"] == 1.2
    assert result["ratio_pooled"] == pytest.approx(1.08 / 1.0, abs=0.001)  # p95 of six, of five
    assert result["beside"]["final_s"]["lost"] == 1
    assert result["beside"]["wer"] == 0.1
    assert result["job_rtfx"] == 4.0
    assert result["p95_s_of_pairs"][2] == [1.0, 1.2]


def test_without_any_final_there_is_no_ratio() -> None:
    with pytest.raises(MeasureFailed, match="no utterance"):
        _result([stretch(0.5)], [stretch(None)])


def test_the_report_says_what_is_missing() -> None:
    facts = {
        "live": {"engine": "oracle", "size": "tiny", "streams": 4, "stretch_s": 60.0},
        "batch": {"engine": "whisper", "size": "small", "tokens_a_window": 100},
    }
    result = _result([stretch(0.5)], [Stretch(stretch(0.6).spoken)])
    text = beside.report(facts | result)
    assert "median 1.20" in text
    assert "the job meanwhile: - s" in text


def test_the_jobs_speed_is_that_of_whole_batches() -> None:
    # (at, percent, CPU seconds of the batch engine); the engine begins at 2, and a fourth batch is under way at the end
    seen = [
        (0, 5, 7.0),
        (1, 10, 7.0),
        (2, 10, 7.9),
        (6, 32.25, 11.0),
        (7, 32.25, 12.0),
        (10, 54.5, 15.0),
        (12, 54.5, 17),
    ]
    looks = [_Look(float(at), "running", float(percent), (0.0, float(cpu), 0.0)) for at, percent, cpu in seen]
    assert _rtfx(looks, 160.0) == pytest.approx(80.0 / 8)
    assert _rtfx(looks[:3], 160.0) is None
    assert _rtfx([], 160.0) is None


def test_the_oracle_as_an_engine_of_the_server(audio: Path, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "oracle"
    for _ in range(2):
        assert oracle.prepare(folder, "tiny", tokenizer_from=toy, audio=audio) == folder
    loaded = oracle.load(EngineSpec(oracle.ENGINE, str(folder), "models"))
    assert loaded.capabilities.min_window_s == RELEASED_MIN_WINDOW_S
    assert loaded.model == "synthetic-tiny"
    assert oracle.load(EngineSpec(oracle.ENGINE, str(folder), "models", min_window_s=0)).capabilities.min_window_s == 0
    with pytest.raises(ModelMissing):
        oracle.load(EngineSpec(oracle.ENGINE, str(tmp_path / "nowhere"), "models"))


@pytest.mark.slow
def test_one_short_pair_in_a_real_server(audio: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "WARM_UP_S", 4.0)
    result = beside.run(audio, toy, batch_size="tiny", streams=1, pairs=1, stretch_s=4.0, job_s=1800.0)
    for name in ("without", "beside"):
        assert result[name]["final_s"]["number"] == 1
        assert result[name]["final_s"]["lost"] == 0
        assert result[name]["wer"] == 0.0
        assert result[name]["streams_broken_off"] == 0
    assert result["beside"]["batch_cores"] > 0.05
    assert result["ratio_median"] > 0
    assert "pooled" in beside.report(result)
