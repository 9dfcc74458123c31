from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from callreel.engines.base import EngineSpec
from callreel.errors import CallreelError, ModelMissing, UnreadableMedia
from callreel.measure import trial
from callreel.measure.harness import MeasureFailed
from callreel.measure.trial import Order
from callreel.offline.options import TranscribeOptions


@pytest.fixture
def order(audio: Path, toy: Path) -> Order:
    spec = EngineSpec("whisper", str(toy), "models")
    return Order(str(audio / "en_short.wav"), spec, TranscribeOptions(language="en", profile="fast"))


def test_a_process_of_its_own_says_what_it_took(order: Order, references: dict[str, Any]) -> None:
    order.profiled = True
    done = trial.run(order)
    assert done.text == references["en_short.wav"]["tracks"]["mono"]["text"]
    assert (done.engine, done.model) == ("whisper", "whisper-toy")
    assert done.audio_s == pytest.approx(references["en_short.wav"]["duration"], abs=0.02)
    assert done.windows == 1 and done.tokens > 0 and 0 < done.window_s <= done.audio_s
    assert done.wall_s > 0 and done.cpu_s > 0 and done.load_s > 0
    assert 30e6 < done.peak_rss_bytes < 2e9
    assert "encode" in done.costliest and "tottime" in done.costliest  # which a thread of the pipeline calls


def test_what_goes_wrong_there_is_raised_here(order: Order, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing):
        trial.run(Order(order.source, replace(order.spec, model=str(tmp_path)), order.options))
    with pytest.raises(CallreelError, match=r"references\.json is not a media file") as raised:
        trial.run(Order(str(audio / "references.json"), order.spec, order.options))
    assert raised.value.code == UnreadableMedia.code


def test_a_process_that_dies_is_an_error(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.sys, "executable", "/bin/false")
    with pytest.raises(MeasureFailed, match="ended with 1"):
        trial.run(order)
