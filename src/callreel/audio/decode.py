"""Any media file to 16 kHz mono samples, as a stream: memory stays the same whatever the length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from callreel.audio.pcm import EMPTY, SAMPLE_RATE, Pcm
from callreel.errors import UnreadableMedia

# A playlist (HLS, ffconcat, an SDP) in a stranger's file would make FFmpeg open other files and addresses in our name.
# The file itself is handed over open, and no protocol is left for anything else.
NOTHING_ELSE = {"protocol_whitelist": "none"}


def decode(source: Path) -> Iterator[Pcm]:
    """The first audio stream of `source`, mixed to mono and resampled, in blocks of at most a second or so.

    Broken packets in the middle are skipped, as players do, and a file that breaks off is read up to there; raises
    UnreadableMedia where nothing can be read at all. Nothing but `source` is opened, whatever it refers to.
    """
    try:
        file = source.open("rb")
    except OSError as error:
        raise UnreadableMedia(f"{source.name} cannot be opened: {error.strerror}") from error
    with file:
        try:
            container = av.open(file, "r", metadata_errors="ignore", options=NOTHING_ELSE)
        except av.FFmpegError as error:
            raise UnreadableMedia(f"{source.name} is not a media file that can be read: {error.strerror}") from error
        with container:
            if not container.streams.audio:
                raise UnreadableMedia(f"{source.name} has no audio track")
            any_audio = False
            for block in _resampled(_frames(container, container.streams.audio[0])):
                any_audio = any_audio or block.size > 0
                yield block
            if not any_audio:
                raise UnreadableMedia(f"{source.name} has an audio track, but no sound could be decoded from it")


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.InvalidDataError, av.PatchWelcomeError):
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue  # also a codec nobody knows: every packet of it ends here


def _resampled(frames: Iterator[av.AudioFrame]) -> Iterator[Pcm]:
    resampler, form = _resampler(), None
    for frame in frames:
        if form not in (None, _form(frame)):  # files put one behind another, a phone switched: legal in MP3, AAC, TS
            yield from map(_samples, resampler.resample(None))
            resampler = _resampler()
        form = _form(frame)
        frame.pts = None  # the resampler would fill a gap in the time stamps with nothing at all
        yield from map(_samples, resampler.resample(frame))
    yield from map(_samples, resampler.resample(None))


def _resampler() -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)


def _form(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _samples(frame: av.AudioFrame) -> Pcm:
    return np.ascontiguousarray(frame.to_ndarray().reshape(-1), dtype=np.int16) if frame.samples else EMPTY


def spool(source: Path, target: Path) -> int:
    """Decode `source` into `target` as raw int16 samples; returns how many. Map it back with `open_spool`.

    A target that could not be written to its end is removed again.
    """
    total = 0
    try:
        with target.open("wb") as file:
            for block in decode(source):
                file.write(block.tobytes())
                total += block.size
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return total


def open_spool(path: Path) -> Pcm:
    """The samples of a spool, mapped: only what is looked at is in memory."""
    if path.stat().st_size == 0:
        return EMPTY
    return np.memmap(path, dtype=np.int16, mode="r")
