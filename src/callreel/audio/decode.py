"""Any media file to 16 kHz mono samples, as a stream: memory stays the same whatever the length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from callreel.audio.pcm import EMPTY, SAMPLE_RATE, Pcm
from callreel.errors import UnreadableMedia


def decode(source: Path) -> Iterator[Pcm]:
    """The first audio stream of `source`, mixed to mono and resampled, in blocks of at most a second or so.

    Broken packets in the middle are skipped, as players do; raises UnreadableMedia where nothing can be read at all.
    """
    try:
        container = av.open(str(source), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise UnreadableMedia(f"{source.name} is not a media file that can be read: {error}") from error
    with container:
        if not container.streams.audio:
            raise UnreadableMedia(f"{source.name} has no audio track")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        any_audio = False
        for block in _resampled(container, stream, resampler):
            any_audio = any_audio or block.size > 0
            yield block
        if not any_audio:
            raise UnreadableMedia(f"{source.name} has an audio track, but no sound could be decoded from it")


def _resampled(
    container: av.container.InputContainer, stream: av.AudioStream, resampler: av.AudioResampler
) -> Iterator[Pcm]:
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        for frame in frames:
            frame.pts = None  # the resampler would fill a gap in the time stamps with nothing at all
            for out in resampler.resample(frame):
                yield _samples(out)
    for out in resampler.resample(None):
        yield _samples(out)


def _samples(frame: av.AudioFrame) -> Pcm:
    return np.ascontiguousarray(frame.to_ndarray().reshape(-1), dtype=np.int16) if frame.samples else EMPTY


def spool(source: Path, target: Path) -> int:
    """Decode `source` into `target` as raw int16 samples; returns how many. Map it back with `open_spool`."""
    total = 0
    with target.open("wb") as file:
        for block in decode(source):
            file.write(block.tobytes())
            total += block.size
    return total


def open_spool(path: Path) -> Pcm:
    """The samples of a spool, mapped: only what is looked at is in memory."""
    if path.stat().st_size == 0:
        return EMPTY
    return np.memmap(path, dtype=np.int16, mode="r")
