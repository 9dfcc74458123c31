"""A scriptable engine: what it does with a window is written in the window's prompt.

    ""                the words are "heard" and how many samples the window has
    die               the process ends at once, as by a segmentation fault
    die_once PATH     the same, unless PATH exists; it does afterwards
    wait PATH         says so by making PATH.begun, and goes on when PATH exists
    hold PATH         the same, but no other thread of its process runs again: as a library that keeps the interpreter
    burn SECONDS      uses so much CPU time
    raise             an error that no engine should raise
    refuse, busy      errors that an engine may raise: InvalidInput, EngineUnavailable

Its model says how loading goes: "missing" and "broken" fail, "slow PATH" makes PATH and takes for ever, "heavy" keeps
HEAVY_BYTES of memory; every other loads.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from callreel.audio.pcm import seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, EngineSpec, Window
from callreel.errors import EngineUnavailable, InvalidInput, ModelMissing
from callreel.text import DecodeStats, Word

HEAVY_BYTES = 300_000_000
NAME = f"{__name__}:load"
CAPABILITIES = Capabilities(batch=3, word_times=True, min_window_s=1.5, max_window_s=12.0, languages=("en", "sw"))


def load(spec: EngineSpec) -> ScriptedEngine:
    if spec.model == "missing":
        raise ModelMissing("The model has gone for a walk", hint="Whistle", folder=spec.models_folder)
    if spec.model == "broken":
        raise RuntimeError("the weights are upside down")
    if spec.model.startswith("slow "):
        Path(spec.model.removeprefix("slow ")).touch()
        select.select([], [], [])
    engine = ScriptedEngine(spec.model)
    if spec.model == "heavy":
        engine.weights = np.ones(HEAVY_BYTES, np.uint8)
    return engine


class ScriptedEngine:
    name = "scripted"
    capabilities = CAPABILITIES

    def __init__(self, model: str) -> None:
        self.model = model
        self.weights = np.zeros(0, np.uint8)

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        return [self._decode(window, options) for window in windows]

    def _decode(self, window: Window, options: DecodeOptions) -> Decoded:
        what, _, where = window.prompt.partition(" ")
        path = Path(where)
        if what == "die" or (what == "die_once" and not path.exists()):
            if what == "die_once":
                path.touch()
            os._exit(1)
        if what == "wait":
            path.with_name(path.name + ".begun").touch()
            while not path.exists():
                select.select([], [], [], 0.005)
        if what == "hold":
            path.with_name(path.name + ".begun").touch()
            sum(range(10**12))
        if what == "burn":
            until = time.thread_time() + float(where)
            while time.thread_time() < until:
                pass
        if what == "raise":
            raise RuntimeError("the pen is empty")
        if what == "refuse":
            raise InvalidInput("This is no speech", hint="Sing less", field="windows")
        if what == "busy":
            raise EngineUnavailable("Come again later")
        duration_s = seconds(len(window.pcm))
        words = (Word(" heard", 0.0, duration_s / 2), Word(f" {len(window.pcm)}", duration_s / 2, duration_s, 0.5))
        return Decoded(words, options.language, 0.75, DecodeStats(len(words), -0.25, 0.125, 1.5, options.temperature))
