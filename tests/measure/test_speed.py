from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from callreel.engines.base import EngineSpec
from callreel.errors import InvalidInput
from callreel.measure import speed
from callreel.measure.speed import Plan, Sound, Subject
from callreel.measure.synthetic import read_synthetic
from callreel.measure.trial import Order, Trial
from callreel.offline.options import TranscribeOptions

FAST = TranscribeOptions(language="en", profile="fast")


def fake_trials(monkeypatch: pytest.MonkeyPatch, *walls: float) -> list[Order]:
    """Trials that took these times; the orders they were given."""
    orders: list[Order] = []
    left = list(walls)

    def run(order: Order) -> Trial:
        orders.append(Order(order.source, order.spec, order.options, order.batch_min, order.batch_max, order.profiled))
        costliest = "a table" if order.profiled else ""
        return Trial("whisper", "m", 1.0, left.pop(0), 30.0, 10**8, 600.0, 20, 500.0, 900, "a b", costliest=costliest)

    monkeypatch.setattr(speed.trial, "run", run)
    return orders


def test_rows_are_models_by_threads_by_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = fake_trials(monkeypatch, 10.0, 20.0, 30.0, 5.0, 5.0, 5.0)
    subject = Subject("base", EngineSpec("whisper", "base", "models"), synthetic=True)
    rows: list[dict[str, Any]] = []
    plan = Plan((1, 2), 3, FAST, 2, 6)
    result = speed.run([subject], [Sound("talk", Path("talk.wav"), "a c")], plan, on_row=rows.append)
    assert [row["threads"] for row in rows] == [1, 2] and result["rows"] == rows
    assert [order.spec.threads for order in orders] == [1, 1, 1, 2, 2, 2]
    assert {(order.batch_min, order.batch_max, order.profiled) for order in orders} == {(2, 6, False)}
    first = rows[0]
    assert first["wall_s"] == {"avg": 20.0, "min": 10.0, "max": 30.0}
    assert first["rtfx"] == {"avg": pytest.approx(36.667), "min": 20.0, "max": 60.0}
    assert first["cpu_cores"] == pytest.approx((3.0 + 1.5 + 1.0) / 3, abs=0.01)
    assert (first["wer"], first["window_s"], first["target_rtfx"]) == (0.5, 25.0, 30.0)
    assert "costliest" not in result
    table = speed.report(result).splitlines()
    assert len(table) == 4 and "20.0 (10.0, 30.0)" in table[2] and "50.0%" in table[2] and "base (s)" in table[3]


def test_a_profile_is_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = fake_trials(monkeypatch, 10.0, 99.0)
    subject = Subject("base", EngineSpec("whisper", "base", "models"))
    plan = Plan((1,), 1, FAST, profiled=True)
    result = speed.run([subject], [Sound("talk", Path("talk.wav"))], plan, on_row=lambda _: None)
    assert [order.profiled for order in orders] == [False, True]
    assert result["rows"][0]["wall_s"]["avg"] == 10.0
    assert result["rows"][0]["wer"] is None and result["rows"][0]["target_rtfx"] is None
    assert "a table" in speed.report(result)


def test_a_real_row_with_its_word_error_rate(
    audio: Path, toy: Path, references: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copy(audio / "en_short.wav", tmp_path)
    (tmp_path / "en_short.txt").write_text(references["en_short.wav"]["tracks"]["mono"]["text"].upper() + ".\n")
    subject = Subject("toy", EngineSpec("whisper", str(toy), "models"))
    with speed.sounds([tmp_path / "en_short.wav"], ()) as sounds:
        result = speed.run([subject], sounds, Plan((1,), 1, FAST), on_row=lambda _: None)
    (row,) = result["rows"]
    assert row["wer"] == 0.0 and row["windows"] == 1 and row["engine"] == "whisper"


def test_files_as_they_are_and_at_lengths(audio: Path, tmp_path: Path) -> None:
    file = audio / "sw_short.flac"
    with speed.sounds([file], ()) as sounds:
        assert sounds == [Sound("sw_short.flac", file, None)]
    with speed.sounds([file, audio / "en_short.wav"], (0.1, 0.2)) as sounds:
        assert [sound.name for sound in sounds] == [
            "sw_short.flac, 0.1 min",
            "en_short.wav, 0.1 min",
            "sw_short.flac, 0.2 min",
            "en_short.wav, 0.2 min",
        ]
        assert [sound.path.stat().st_size for sound in sounds[1:3]] == [44 + 6 * 32_000, 44 + 12 * 32_000]
        assert all(sound.reference is None for sound in sounds)
    assert not sounds[0].path.exists()


def test_without_files_it_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "BABBLE_MIN", 0.05)
    with speed.sounds((), ()) as sounds:
        assert [sound.name for sound in sounds] == ["made-up speech, 0.05 min"]
    with speed.sounds((), (0.02, 0.03)) as sounds:
        assert [sound.name for sound in sounds] == ["made-up speech, 0.02 min", "made-up speech, 0.03 min"]


def test_a_reference_that_cannot_be_read_is_said(audio: Path, tmp_path: Path) -> None:
    shutil.copy(audio / "en_short.wav", tmp_path)
    (tmp_path / "en_short.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInput, match=r"en_short\.wav"), speed.sounds([tmp_path / "en_short.wav"], ()):
        pass


def test_synthetic_weights_that_say_so_many_words() -> None:
    spec = EngineSpec("auto", "base", "models", threads=2)
    with speed.synthetic_subjects(["tiny"], spec, tokens=7) as (subject,):
        assert (subject.name, subject.synthetic, subject.spec.engine, subject.spec.threads) == (
            "tiny",
            True,
            "whisper",
            2,
        )
        assert len(read_synthetic(Path(subject.spec.model)).chain) == 7
    assert not Path(subject.spec.model).exists()
