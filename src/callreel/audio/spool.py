"""Decoded sound on disk: raw 16 kHz samples, a file a channel, whole or not there, read without filling the memory."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np

from callreel.audio.decode import MAX_DURATION_S, Sound
from callreel.audio.pcm import BYTES_PER_SAMPLE, SAMPLE_RATE, Channels, Pcm, Samples
from callreel.errors import disk_fault

FOLDER = "spool"
CARD = "spool.json"  # written last: a spool with its card is whole
FLUSH_SAMPLES = 10 * SAMPLE_RATE
FINGERPRINT_BYTES = 1 << 20  # at each end of the file


class SampleFile:
    """A file of raw int16 samples, which may still grow. Reading costs no memory but what is asked for.

    A mapped file would count as this process's memory, page by page, until all of it is there.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return os.fstat(self._fd).st_size // BYTES_PER_SAMPLE

    def __getitem__(self, part: slice) -> Pcm:
        start, stop, _ = part.indices(len(self))
        wanted = max(0, stop - start) * BYTES_PER_SAMPLE
        data, at = bytearray(), start * BYTES_PER_SAMPLE
        while len(data) < wanted and (block := os.pread(self._fd, wanted - len(data), at + len(data))):
            data += block
        return np.frombuffer(bytes(data), np.int16)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Card(msgspec.Struct):
    """What a spool holds, and of what."""

    source: str
    channels: str
    n_tracks: int
    n_samples: int
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Spool:
    """A whole spool, open: the samples of each track, all of one length. Close it, or use it as a context."""

    tracks: tuple[SampleFile, ...]
    n_samples: int
    warnings: tuple[str, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for track in self.tracks:
            track.close()


def fingerprint(source: Path) -> str:
    """Names the content of a file by its size and both its ends. Raises OSError."""
    size = source.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with source.open("rb") as file:
        digest.update(file.read(FINGERPRINT_BYTES))
        file.seek(max(FINGERPRINT_BYTES, size - FINGERPRINT_BYTES))
        digest.update(file.read())
    return digest.hexdigest()


def spool(
    source: Path,
    work: Path,
    channels: Channels = "mix",
    *,
    max_duration_s: float = MAX_DURATION_S,
    on_written: Callable[[Sequence[Samples], Sound], None] = lambda _tracks, _sound: None,
) -> Spool:
    """`source` decoded under the folder `work`; one that lies there whole already, of the same file, is taken.

    `on_written(tracks, sound)` is called again and again with what can be read so far. Raises what `Sound` raises,
    and OutOfSpace or StorageUnavailable where the disk does not take it; then nothing is left.
    """
    folder = work / FOLDER
    try:
        print_ = fingerprint(source)
    except (OSError, ValueError):
        print_ = ""  # `Sound` says what is wrong with it
    kept = _kept(folder, print_, channels)
    if kept is not None:
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    part, opened = folder.with_suffix(".part"), list[SampleFile]()
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        sound = Sound(source, channels, max_duration_s=max_duration_s)
        written = _write(sound, part, opened, on_written)
        card = Card(print_, channels, len(opened), written, sound.warnings)
        (part / CARD).write_bytes(msgspec.json.encode(card))
        part.rename(folder)
    except OSError as error:
        _give_up(part, opened)
        raise disk_fault(
            error,
            f"The decoded audio of {source.name} cannot be written: {error.strerror}",
            hint="Free space: an hour of one channel takes 115 MB while it is transcribed",
        ) from error
    except BaseException:
        _give_up(part, opened)
        raise
    return Spool(tuple(opened), card.n_samples, tuple(card.warnings))


def remove(work: Path) -> None:
    """Take away the spool in `work`, if there is one."""
    shutil.rmtree(work / FOLDER, ignore_errors=True)


def _write(
    sound: Sound, part: Path, opened: list[SampleFile], on_written: Callable[[Sequence[Samples], Sound], None]
) -> int:
    """Each channel to a file, which is put among the `opened`; returns how many samples each holds."""
    n_samples = flushed = 0
    with ExitStack() as stack:
        writers: list[BufferedWriter] = []
        for block in sound:
            if not writers:
                paths = [part / _name(i) for i in range(block.shape[1])]
                writers = [stack.enter_context(path.open("wb")) for path in paths]
                opened.extend(SampleFile(path) for path in paths)
            for writer, channel in zip(writers, block.T, strict=True):
                writer.write(channel.tobytes())
            n_samples += len(block)
            if n_samples - flushed >= FLUSH_SAMPLES:
                flushed = n_samples
                for writer in writers:
                    writer.flush()
                on_written(opened, sound)
    return n_samples


def _give_up(part: Path, opened: Sequence[SampleFile]) -> None:
    for file in opened:
        file.close()
    shutil.rmtree(part, ignore_errors=True)


def _kept(folder: Path, source: str, channels: Channels) -> Spool | None:
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
    except (OSError, msgspec.DecodeError):
        return None
    sizes = {(folder / _name(i)).stat().st_size for i in range(card.n_tracks) if (folder / _name(i)).exists()}
    if (card.source, card.channels) != (source, channels) or sizes != {card.n_samples * BYTES_PER_SAMPLE}:
        return None
    tracks = tuple(SampleFile(folder / _name(i)) for i in range(card.n_tracks))
    return Spool(tracks, card.n_samples, tuple(card.warnings))


def _name(track: int) -> str:
    return f"{track}.s16"
