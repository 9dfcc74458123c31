"""The Whisper models that have names: what they are called, where they are, and what they ask of a machine."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

MB, GB = 10**6, 10**9


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One released model. Sizes are about right and there to choose by: bytes of the download, of RAM as int8 on a
    CPU with batches of 4, of GPU memory as float16 with batches of 8. `speed` is relative to large-v3.
    """

    name: str
    repository: str
    parameters: int
    download_bytes: int
    ram_bytes: int
    vram_bytes: int
    speed: float
    use_case: str
    languages: int = 99
    translates: bool = True  # to English
    aliases: tuple[str, ...] = ()


# Parameters and speeds: the model cards of OpenAI and Distil-Whisper. Download sizes: the repositories. RAM: measured
# with synthetic weights of the same shapes (measure/synthetic.py), batches of 4 windows of 30 s, one thread; reckoned
# from those for turbo and distil, whose decoders are small. GPU memory: weights and workspace.
MODELS = (
    ModelInfo("tiny", "Systran/faster-whisper-tiny", 39 * MB, 78 * MB, 350 * MB, GB, 10, "a first look, weak machines"),
    ModelInfo(
        "tiny.en", "Systran/faster-whisper-tiny.en", 39 * MB, 78 * MB, 350 * MB, GB, 10, "the same, English", 1, False
    ),
    ModelInfo("base", "Systran/faster-whisper-base", 74 * MB, 148 * MB, 450 * MB, GB, 7, "live on a CPU, the default"),
    ModelInfo(
        "base.en", "Systran/faster-whisper-base.en", 74 * MB, 148 * MB, 450 * MB, GB, 7, "the same, English", 1, False
    ),
    ModelInfo(
        "small", "Systran/faster-whisper-small", 244 * MB, 486 * MB, 1000 * MB, 2 * GB, 4, "files on a CPU, clear calls"
    ),
    ModelInfo(
        "small.en",
        "Systran/faster-whisper-small.en",
        244 * MB,
        486 * MB,
        1000 * MB,
        2 * GB,
        4,
        "the same, English",
        1,
        False,
    ),
    ModelInfo(
        "medium", "Systran/faster-whisper-medium", 769 * MB, 1530 * MB, 2300 * MB, 4 * GB, 2, "noisy calls, accents"
    ),
    ModelInfo(
        "medium.en",
        "Systran/faster-whisper-medium.en",
        769 * MB,
        1530 * MB,
        2300 * MB,
        4 * GB,
        2,
        "the same, English",
        1,
        False,
    ),
    ModelInfo(
        "large-v3",
        "Systran/faster-whisper-large-v3",
        1550 * MB,
        3090 * MB,
        4000 * MB,
        6 * GB,
        1,
        "best accuracy, a GPU",
        aliases=("large",),
    ),
    ModelInfo(
        "large-v3-turbo",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        809 * MB,
        1620 * MB,
        1700 * MB,
        4 * GB,
        8,
        "large-v3's accuracy, quick; no translation",
        translates=False,
        aliases=("turbo",),
    ),
    ModelInfo(
        "distil-large-v3.5",
        "distil-whisper/distil-large-v3.5-ct2",
        756 * MB,
        1520 * MB,
        1600 * MB,
        4 * GB,
        8,
        "English, quick and accurate",
        1,
        False,
    ),
)

_BY_NAME = {name: model for model in MODELS for name in (model.name, *model.aliases)}
_BY_REPOSITORY = {model.repository.lower(): model for model in MODELS}


def known(name: str) -> ModelInfo | None:
    """The released model of this name, alias or hub repository, in any case of letters."""
    return _BY_NAME.get(name.lower()) or _BY_REPOSITORY.get(name.lower())


def nearest(name: str, others: Iterable[str] = ()) -> str | None:
    """The known name most like `name`, `others` being known as well; None if none is like it."""
    found = difflib.get_close_matches(name.lower(), [*_BY_NAME, *others], n=1, cutoff=0.5)
    return found[0] if found else None
