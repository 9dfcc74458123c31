"""PocketSphinx: English only and weak, but its model comes inside its wheel, so it works with no download."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import replace

import pocketsphinx

from callreel.audio.pcm import seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, EngineSpec, Window
from callreel.engines.workers import Workers
from callreel.text import DecodeStats, Word

FRAMES_PER_SECOND = 100
FILLER = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")
PRONUNCIATION = re.compile(r"\(\d+\)$")  # "the(2)": a second way to say it, not a part of the word
# Wider than its defaults (1e-48, 7e-29, 1e-48), which lose the best path by where a window happens to start: on six
# cuts of one sentence of six, against one of six, for 1.5 times the work.
BEAMS = {"beam": 1e-60, "wbeam": 1e-40, "pbeam": 1e-60}


NAME, MODEL = "pocketsphinx", "en-us"
CAPABILITIES = Capabilities(batch=1, word_times=True, max_window_s=30.0, languages=("en",))


def load(spec: EngineSpec) -> Workers:
    """Decodes in processes of their own: the library keeps the interpreter for as long as an utterance takes."""
    there = replace(spec, engine=f"{__name__}:load_here", model=MODEL)
    return Workers(NAME, MODEL, replace(CAPABILITIES, parallel=spec.threads), there)


def load_here(spec: EngineSpec) -> PocketSphinxEngine:
    """The engine in this process."""
    return PocketSphinxEngine()


class PocketSphinxEngine:
    """One decoder a thread: a decoder holds the state of one utterance."""

    name, model, capabilities = NAME, MODEL, CAPABILITIES

    def __init__(self) -> None:
        self._local = threading.local()

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        return [self._decode(window) for window in windows]

    def _decode(self, window: Window) -> Decoded:
        if len(window.pcm) == 0:
            return Decoded((), "en")
        decoder = self._decoder()
        try:
            decoder.start_utt()
            decoder.process_raw(window.pcm.tobytes(), full_utt=True)
            decoder.end_utt()
        except BaseException:
            del self._local.decoder  # left inside an utterance, it would refuse every other one
            raise
        logmath = decoder.get_logmath()
        duration = seconds(len(window.pcm))
        words, at = [], 0.0
        for segment in decoder.seg() or ():
            if FILLER.match(segment.word):
                continue
            start = min(max(segment.start_frame / FRAMES_PER_SECOND, at), duration)
            at = min(max((segment.end_frame + 1) / FRAMES_PER_SECOND, start), duration)
            probability = min(1.0, math.exp(min(0.0, logmath.log_to_ln(segment.prob))))
            words.append(Word(" " + PRONUNCIATION.sub("", segment.word), start, round(at, 3), round(probability, 4)))
        return Decoded(tuple(words), "en", 1.0, DecodeStats(tokens=len(words)))

    def _decoder(self) -> pocketsphinx.Decoder:
        if not hasattr(self._local, "decoder"):
            self._local.decoder = pocketsphinx.Decoder(samprate=16000, loglevel="FATAL", **BEAMS)
        return self._local.decoder
