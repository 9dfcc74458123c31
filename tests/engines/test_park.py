from __future__ import annotations

import threading
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper.transcribe import get_ctranslate2_storage

from callreel.engines.park import Park
from tests.engines.children import wait_until


class Model:
    def __init__(self) -> None:
        self.history: list[str] = []

    def park(self, after_s: float) -> Park:
        return Park(lambda: self.history.append("left"), lambda: self.history.append("back"), after_s=after_s)


def test_it_leaves_when_idle_and_is_back_when_needed() -> None:
    model = Model()
    park = model.park(0.02)
    for n in (1, 2):
        wait_until(lambda: park.parked, "it is parked")
        with park.in_use():
            assert not park.parked
            assert model.history == ["left", "back"] * n


def test_it_stays_while_anybody_uses_it() -> None:
    model = Model()
    park = model.park(0.0)
    wait_until(lambda: park.parked, "it is parked")
    with park.in_use():
        with park.in_use():
            pass
        threading.Event().wait(0.05)
        assert model.history == ["left", "back"]
    wait_until(lambda: model.history == ["left", "back", "left"], "it is parked again")


def test_a_model_that_was_away_decodes_as_before(toy_model: Path) -> None:
    """On a CPU to leave is to be unloaded: the same calls as on a GPU, where it waits in RAM."""
    model = ctranslate2.models.Whisper(str(toy_model), compute_type="int8")
    features = get_ctranslate2_storage(np.zeros((1, model.n_mels, 500), np.float32))
    park = Park(model.unload_model, model.load_model, after_s=0.05)  # 0: it would still count as busy
    said = []
    for _ in range(2):
        wait_until(lambda: park.parked, "it is parked")
        assert not model.model_is_loaded
        with park.in_use():
            assert model.model_is_loaded
            said.append(np.array(model.encode(features)))
    np.testing.assert_array_equal(*said)
