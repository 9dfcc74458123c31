"""The models on this machine: found, measured, imported. Plain folders; nothing is loaded, no hub is asked."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callreel.engines.models import MODELS, known, nearest
from callreel.errors import Conflict, InvalidInput, ModelMissing, NotFound

WEIGHTS = "model.bin"
NEEDED_FILES = (WEIGHTS, "config.json", "tokenizer.json")  # without the last, faster-whisper would ask the hub for one
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
OTHER_FILES = ("preprocessor_config.json", "callreel.json", "README.md")
INCOMING = ".incoming"  # what is not whole yet, inside the models folder
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,99}/[A-Za-z0-9][\w.-]{0,99}")
HOW_TO_CONVERT = "Give a folder that CTranslate2's converter wrote: model.bin, config.json, tokenizer.json, vocabulary"


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A whole model on this machine. `where` is "models" (pulled or imported), "hub cache" or "folder"."""

    name: str
    folder: Path
    where: str

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())


def lacking(folder: Path) -> list[str]:
    """The files that `folder` lacks to be a Whisper model for CTranslate2."""
    missing = [name for name in NEEDED_FILES if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in VOCABULARIES):
        missing.append(VOCABULARIES[0])
    return missing


def canonical(model: str) -> str:
    """`model` by the name it is kept under: a released model's own, else what was given."""
    info = known(model)
    return info.name if info else model


def repository_of(model: str) -> str | None:
    """Where on the hub a model is fetched from; None for a folder and for a name that is only known here."""
    info = known(model)
    if info:
        return info.repository
    return model if REPOSITORY.fullmatch(model) else None


def home(model: str, models_folder: Path) -> Path:
    """Where a model is put when it is pulled, whether it is there or not."""
    return models_folder / canonical(model).replace("/", "--")


def is_folder(model: str) -> bool:
    """Is a folder meant, not a name? One of the same name as a released model is given as ./NAME."""
    if model.startswith(("/", "./", "../", "~")):
        return True
    try:
        return not known(model) and Path(model).is_dir()
    except OSError:  # longer than any name of a file
        return False


def find(model: str, models_folder: Path) -> OnDisk | None:
    """A model on this machine: a released model's name, a hub repository id, an imported model's name, or a folder.

    A folder is taken as it is, whole or not: loading it says what it lacks. Raises InvalidInput for a name that cannot
    be anything, with the nearest one.
    """
    if not model or "\0" in model:
        raise InvalidInput(f"There is no Whisper model called {model!r}", hint="Names: " + ", ".join(_names()))
    if is_folder(model):
        folder = Path(model).expanduser()
        return OnDisk(folder.resolve().name, folder, "folder") if folder.is_dir() else None
    own = home(model, models_folder)
    if own.parent == models_folder and not lacking(own):
        return OnDisk(canonical(model), own, "models")
    repository = repository_of(model)
    if repository is None:
        like = nearest(model, (found.name for found in _pulled(models_folder)))
        raise InvalidInput(
            f"There is no Whisper model called {model!r}" + (f"; {like!r} is the nearest" if like else ""),
            hint="Give a folder, a hub repository id, or one of: " + ", ".join(_names()),
            nearest=like,
        )
    for cache in (models_folder, _hub_cache()):
        snapshot = _snapshot(cache, repository)
        if snapshot:
            return OnDisk(canonical(model), snapshot, "hub cache")
    return None


def missing(model: str, models_folder: Path) -> ModelMissing:
    """The error for a model that is not here and is not to be fetched."""
    if repository_of(model) is None:
        return ModelMissing(f"There is no folder {model!r}", hint="Give a folder that is there, or a model's name")
    return ModelMissing(
        f"The Whisper model {model!r} is not on this machine",
        hint=f"Get it with `callreel models pull {canonical(model)}`, put it under {models_folder}, "
        "or let it be fetched: CALLREEL_MODELS_DOWNLOAD=true",
    )


def present(models_folder: Path) -> list[OnDisk]:
    """Every named model on this machine, those of the hub's cache included, in the catalogue's order, then by name."""
    found = {model.name: model for model in _pulled(models_folder)}
    for info in MODELS:
        if info.name not in found and (here := find(info.name, models_folder)):
            found[info.name] = here
    order = [info.name for info in MODELS]
    return sorted(found.values(), key=lambda m: (order.index(m.name) if m.name in order else len(order), m.name))


def check(folder: Path) -> None:
    """Raises InvalidInput unless `folder` holds a Whisper model for CTranslate2, by its files and its weights' head."""
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}", hint=HOW_TO_CONVERT)
    missing = lacking(folder)
    if missing:
        raise InvalidInput(
            f"There is no whole Whisper model in {folder}: it lacks {' and '.join(missing)}", hint=HOW_TO_CONVERT
        )
    with (folder / WEIGHTS).open("rb") as weights:
        if b"WhisperSpec" not in weights.read(64):  # after CTranslate2's version and a length
            raise InvalidInput(f"{folder / WEIGHTS} holds no Whisper weights of CTranslate2", hint=HOW_TO_CONVERT)


def import_folder(source: Path, models_folder: Path, name: str | None = None) -> OnDisk:
    """Keep the model in `source` under `name` (its folder's name if none is given), to be used by that name.

    Its files are linked where the file system allows, else copied; it appears whole or not at all. Raises InvalidInput
    for a folder without a model and for a bad name, Conflict where the name is taken.
    """
    source = source.expanduser()
    check(source)
    name = canonical(name or source.resolve().name)
    if not NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name for a model", hint="Letters, digits, dots and dashes; give --name")
    target = home(name, models_folder)
    if target.exists():
        raise Conflict(f"There is a model called {name!r} already: {target}", hint="Give another name, or remove it")
    models_folder.mkdir(parents=True, exist_ok=True)
    (models_folder / INCOMING).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_folder / INCOMING, prefix="import.") as temporary:
        draft = Path(temporary) / "model"
        draft.mkdir()
        for file in (*NEEDED_FILES, *VOCABULARIES, *OTHER_FILES):
            if (source / file).is_file():
                _link_or_copy((source / file).resolve(), draft / file)
        try:
            draft.rename(target)
        except OSError as error:
            if target.exists():
                raise Conflict(f"There is a model called {name!r} already: {target}") from error
            raise
    return OnDisk(name, target, "models")


def remove(model: str, models_folder: Path) -> int:
    """Delete a pulled or imported model, and say how many bytes it had; a process that has loaded it keeps it.

    Raises InvalidInput for a name that nobody knows and for a model that lies elsewhere, NotFound for one not here.
    """
    found = find(model, models_folder)
    if found is None:
        raise NotFound(f"The model {model!r} is not on this machine", hint="callreel models")
    if found.where != "models":
        raise InvalidInput(
            f"{model!r} lies in {found.folder}, not among our models", hint="Delete that folder yourself"
        )
    size = found.size_bytes
    (models_folder / INCOMING).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_folder / INCOMING, prefix="remove.") as temporary:
        found.folder.rename(Path(temporary) / "model")  # gone at once, though its bytes take a moment
    return size


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another volume, or a file system without links
        shutil.copyfile(source, target)


def _names() -> list[str]:
    return [info.name for info in MODELS]


def _pulled(models_folder: Path) -> Iterator[OnDisk]:
    try:
        folders = sorted(path for path in models_folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return
    for folder in folders:
        if not lacking(folder):
            yield OnDisk(folder.name.replace("--", "/", 1), folder, "models")


def _hub_cache() -> Path:
    """Where the hub's own client keeps models: users of faster-whisper have theirs there."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(base).expanduser() / "hub"


def _snapshot(cache: Path, repository: str) -> Path | None:
    """The newest whole snapshot of a repository in a cache of the hub's client."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text().strip()
        snapshots = [folder / "snapshots" / commit, *(folder / "snapshots").iterdir()]
    except OSError:
        return None
    return next((snapshot for snapshot in snapshots if not lacking(snapshot)), None)
