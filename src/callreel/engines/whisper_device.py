"""Where Whisper runs, and with which numbers: `auto` made definite, and what cannot be refused with what can."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.transcribe import get_ctranslate2_storage

from callreel.engines import gpu
from callreel.engines.base import EngineSpec
from callreel.engines.heap import keep_large_blocks
from callreel.engines.shelf import WEIGHTS
from callreel.errors import InvalidInput, ModelMissing

log = logging.getLogger("callreel.engine")

DEVICES = ("auto", "cpu", "cuda")
AUTO = "auto"
WORKSPACE_BYTES = 1 << 30  # of a batch on a GPU, beside the weights


@dataclass(frozen=True, slots=True)
class Placement:
    device: str
    compute_type: str


def placements(spec: EngineSpec, weights_bytes: int) -> list[Placement]:
    """Where to try to load the model, best first. Raises InvalidInput for a device or compute type not to be had."""
    if spec.device not in DEVICES:
        raise InvalidInput(f"There is no device {spec.device!r}", hint=f"Devices: {', '.join(DEVICES)}")
    has_gpu = ctranslate2.get_cuda_device_count() > 0
    if spec.device == "cuda" and not has_gpu:
        raise InvalidInput(
            "There is no CUDA device here",
            hint="Give --device cpu or auto; else check the driver with nvidia-smi",
        )
    devices = {"auto": ["cuda", "cpu"] if has_gpu else ["cpu"]}.get(spec.device, [spec.device])
    found, refused = [], []
    for device in devices:
        supported = ctranslate2.get_supported_compute_types(device)
        if spec.compute_type in (AUTO, "default"):
            card = gpu.first() if device == "cuda" else None
            found.append(Placement(device, choose(device, supported, weights_bytes, card.free_bytes if card else None)))
        elif spec.compute_type in supported:
            found.append(Placement(device, spec.compute_type))
        else:
            refused.append(f"{device} does {', '.join(sorted(supported))}")
    if not found:
        raise InvalidInput(
            f"The compute type {spec.compute_type!r} is not to be had here", hint=f"auto, or: {'; '.join(refused)}"
        )
    return found


def choose(device: str, supported: Collection[str], weights_bytes: int, free_bytes: int | None) -> str:
    """The compute type for `auto`: int8 on a CPU; on a GPU float16, or int8_float16 where its memory is small.

    `weights_bytes` are those of the file, float16 as released; `free_bytes` None: nobody knows.
    """
    small = free_bytes is not None and free_bytes < weights_bytes + WORKSPACE_BYTES
    wanted = ["int8"] if device == "cpu" else ["int8_float16", "int8"] if small else ["float16", "int8_float16", "int8"]
    return next((compute_type for compute_type in wanted if compute_type in supported), "auto")


def load_model(spec: EngineSpec, folder: Path) -> WhisperModel:
    """The model in memory, on the first placement that works. Raises ModelMissing where it cannot be loaded."""
    possible = placements(spec, (folder / WEIGHTS).stat().st_size)
    for placement in possible:
        try:
            return _load(spec, folder, placement)
        except Exception as error:  # the tokenizers library raises the bare class
            if placement is possible[-1]:
                if placement.device == "cuda":
                    raise InvalidInput(
                        f"The model in {folder} cannot be loaded on the GPU: {error}",
                        hint="Give --device cpu, a smaller model, or --compute-type int8_float16; "
                        "CUDA 12 with cuBLAS and cuDNN 9 is needed",
                    ) from error
                raise ModelMissing(f"The model in {folder} cannot be loaded: {error}") from error
            log.warning("%s cannot be loaded on the GPU, using the CPU: %s", folder.name, error)
    raise AssertionError("there is always a last placement")


def _load(spec: EngineSpec, folder: Path, placement: Placement) -> WhisperModel:
    keep_large_blocks()
    model = WhisperModel(
        str(folder),
        device=placement.device,
        compute_type=placement.compute_type,
        cpu_threads=1,
        num_workers=spec.threads,
    )
    if placement.device == "cuda":  # its libraries are looked for only when they are first needed
        silence = np.zeros((1, model.model.n_mels, 100), np.float32)
        model.model.encode(get_ctranslate2_storage(silence), to_cpu=True)
    return model
