"""Voice activity: how likely each 32 ms frame is speech, and the stretches of speech that follow from it.

The model is Silero VAD, whose ONNX file comes inside faster-whisper. It is recurrent: one `Vad` an audio stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime

from callreel.audio.pcm import EMPTY, Pcm, samples

FRAME = 512  # samples: 32 ms, the only frame the model takes at 16 kHz
CONTEXT = 64  # samples of the frame before, that the model wants in front of each frame
SPEECH_THRESHOLD = 0.5
SILENCE_THRESHOLD = 0.35  # leaving speech needs more certainty than staying in it: no flicker at the border
FRAMES_PER_CALL = 64  # bounds the memory of a call; more gives no speed

Probabilities: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    found = find_spec("faster_whisper")  # which takes 0.15 s to import, and is not needed for a file in it
    assert found is not None and found.origin is not None
    path = Path(found.origin).parent / "assets" / "silero_vad_v6.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


_loading = threading.Lock()


class Vad:
    """Speech probabilities of one audio stream, fed in blocks of any size."""

    def __init__(self) -> None:
        with _loading:
            self._run = _session().run
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._tail: np.ndarray[tuple[int], np.dtype[np.float32]] = np.zeros(CONTEXT, np.float32)
        self._rest = EMPTY  # samples short of a whole frame

    def feed(self, pcm: Pcm) -> Probabilities:
        """Probabilities (0..1) of the frames that `pcm` completes: frame i covers samples [i * 512, (i + 1) * 512)."""
        pending = np.concatenate([self._rest, pcm])
        n_frames = len(pending) // FRAME
        self._rest = pending[n_frames * FRAME :]
        out = [
            self._frames(pending[start * FRAME : min(start + FRAMES_PER_CALL, n_frames) * FRAME])
            for start in range(0, n_frames, FRAMES_PER_CALL)
        ]
        return np.concatenate(out) if out else np.zeros(0, np.float32)

    def _frames(self, pcm: Pcm) -> Probabilities:
        signal = pcm.astype(np.float32) / 32768.0
        frames = signal.reshape(-1, FRAME)
        before = np.concatenate([self._tail[None], frames[:-1, -CONTEXT:]])
        self._tail = signal[-CONTEXT:]
        probabilities, self._h, self._c = self._run(
            None, {"input": np.concatenate([before, frames], axis=1), "h": self._h, "c": self._c}
        )
        return np.asarray(probabilities, np.float32).reshape(-1)


@dataclass(frozen=True, slots=True)
class Speech:
    """A stretch of speech: samples [start, end)."""

    start: int
    end: int


def speech_stretches(
    probabilities: Iterable[float], total: int, *, min_silence_s: float = 0.1, min_speech_s: float = 0.1
) -> Iterator[Speech]:
    """Stretches of speech among `total` samples, from frame probabilities, with no padding around them.

    A silence shorter than `min_silence_s` does not end a stretch; a stretch shorter than `min_speech_s` is dropped.
    """
    min_silence, min_speech = samples(min_silence_s), samples(min_speech_s)
    start: int | None = None
    last_speech = 0
    at = 0
    for probability in probabilities:
        if probability >= (SPEECH_THRESHOLD if start is None else SILENCE_THRESHOLD):
            start = at if start is None else start
            last_speech = at + FRAME
        elif start is not None and at + FRAME - last_speech >= min_silence:
            if last_speech - start >= min_speech:
                yield Speech(start, last_speech)
            start = None
        at += FRAME
    if start is not None and last_speech - start >= min_speech:
        yield Speech(start, min(last_speech, total))
