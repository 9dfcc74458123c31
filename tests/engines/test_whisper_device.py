from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ctranslate2
import pytest

from callreel.engines.base import EngineSpec
from callreel.engines.whisper import load
from callreel.engines.whisper_device import WORKSPACE_BYTES, Placement, choose, placements
from callreel.errors import InvalidInput

GPU = {"float32", "float16", "int8", "int8_float16", "int8_float32", "bfloat16"}
NO_GPU = ctranslate2.get_cuda_device_count() == 0
without_gpu = pytest.mark.skipif(not NO_GPU, reason="this machine has a CUDA device")


def spec(toy_model: Path) -> EngineSpec:
    return EngineSpec("whisper", str(toy_model), "/nowhere")


@pytest.mark.parametrize(
    ("device", "supported", "free_bytes", "expected"),
    [
        ("cpu", {"float32", "int8", "int8_float32"}, None, "int8"),
        ("cpu", {"float32"}, None, "auto"),
        ("cuda", GPU, None, "float16"),
        ("cuda", GPU, 5_000_000_000, "float16"),
        ("cuda", GPU, 3_000_000_000, "int8_float16"),
        ("cuda", {"float32", "int8", "int8_float32"}, 80_000_000_000, "int8"),  # a card without half precision
        ("cuda", {"float32"}, 1, "auto"),
    ],
)
def test_auto_is(device: str, supported: set[str], free_bytes: int | None, expected: str) -> None:
    assert choose(device, supported, 3_090_000_000, free_bytes) == expected
    assert WORKSPACE_BYTES < 1_500_000_000


@without_gpu
def test_on_a_cpu_auto_is_int8(toy_model: Path) -> None:
    assert placements(spec(toy_model), 1) == [Placement("cpu", "int8")]
    assert load(spec(toy_model))._whisper.model.compute_type.startswith("int8")


def test_what_is_asked_for_is_taken(toy_model: Path) -> None:
    asked = replace(spec(toy_model), device="cpu", compute_type="float32")
    assert placements(asked, 1) == [Placement("cpu", "float32")]
    assert load(asked)._whisper.model.compute_type == "float32"


@without_gpu
def test_a_gpu_that_is_not_there(toy_model: Path) -> None:
    with pytest.raises(InvalidInput, match="no CUDA device") as caught:
        load(replace(spec(toy_model), device="cuda"))
    assert "--device cpu" in caught.value.hint


@pytest.mark.parametrize(("field", "value"), [("device", "tpu"), ("compute_type", "int3")])
def test_what_nobody_has(field: str, value: str, toy_model: Path) -> None:
    with pytest.raises(InvalidInput, match=value) as caught:
        load(replace(spec(toy_model), **{field: value}))
    assert "cpu" in caught.value.hint


@without_gpu
def test_a_compute_type_that_this_device_has_not(toy_model: Path) -> None:
    with pytest.raises(InvalidInput, match="float16") as caught:
        load(replace(spec(toy_model), compute_type="float16"))
    assert "int8" in caught.value.hint
