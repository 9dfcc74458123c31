"""What every engine promises: windows of speech in, words with times out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from callreel.audio.pcm import Pcm
from callreel.text import DecodeStats, Word


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do with its model.

    A window shorter than `min_window_s` is zero-padded by the engine; none may be longer than `max_window_s`.
    An empty `languages` means "any"; `batch` is how many windows one call serves better than several calls do, and
    `parallel` how many calls run at once.
    """

    batch: int = 1
    parallel: int = 1
    word_times: bool = True
    translate: bool = False
    min_window_s: float = 0.0
    max_window_s: float = 30.0
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of audio for one decode: int16 samples at 16 kHz, mono, and the text that came before it."""

    pcm: Pcm
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """One set of options for a whole batch.

    `language` None: detect for each window, among `languages` if any are given. `temperature` 0 searches with
    `beam_size` beams; above 0 it samples, which no two runs do alike. `no_repeat_ngram` forbids to say the same
    so many tokens twice (0: nothing is forbidden). Without `word_times` the words' times are estimates, spread over
    the stretch of text they stand in, and cost nothing.
    """

    language: str | None = None
    languages: tuple[str, ...] = ()
    task: str = "transcribe"
    beam_size: int = 1
    temperature: float = 0.0
    hotwords: str = ""
    no_repeat_ngram: int = 0
    word_times: bool = True


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one window says. Word times are seconds from the window's start, in order, inside the window."""

    words: tuple[Word, ...] = ()
    language: str | None = None
    language_probability: float = 1.0
    stats: DecodeStats = field(default_factory=DecodeStats)


class Engine(Protocol):
    """Turns speech into text. An engine knows no job, no stream, no store; its calls may come from several threads."""

    @property
    def name(self) -> str:
        """What transcripts record as their engine."""
        ...

    @property
    def model(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        """One Decoded a window, in order. Raises EngineUnavailable (or a subclass) when it cannot."""
        ...


def as_float(pcm: Pcm) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """int16 samples as float32 in [-1, 1), the way models take them."""
    return pcm.astype(np.float32) / 32768.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What to load: an engine by name, its model, and how it may use the machine.

    `engine` is a name of the catalogue, or "package.module:function" for one from elsewhere. `threads` is how many
    decodes may run at once, each on one core. `device` is auto, cpu or cuda; `compute_type` auto or one of
    CTranslate2's. `min_window_s` None: what the model's own card says. `hub_url` and `proxy` are where and how models
    are fetched, `url` and `key` where a remote engine answers. On a GPU a model that was idle for `park_after_s`
    waits in RAM (0: it stays where it is).
    """

    engine: str
    model: str
    models_folder: str
    threads: int = 1
    min_window_s: float | None = None
    download: bool = False
    device: str = "auto"
    compute_type: str = "auto"
    hub_url: str | None = None
    proxy: str | None = None
    url: str | None = None
    key: str | None = None
    park_after_s: float = 0.0
