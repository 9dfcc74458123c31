"""Any media file to 16 kHz samples, as a stream: memory stays the same whatever the length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias, get_args

import av
import numpy as np

from callreel.audio.claims import claimed_s
from callreel.audio.ogg import Span, links
from callreel.audio.pcm import SAMPLE_RATE, Channels, Pcm
from callreel.errors import InvalidInput, TooLong, UnreadableMedia

Block: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.int16]]  # (samples, channels)

# A playlist (HLS, ffconcat, an SDP) in a stranger's file would make FFmpeg open other files and addresses in our name.
# The file itself is handed over open, and no protocol is left for anything else.
NOTHING_ELSE = {"protocol_whitelist": "none"}
MAX_DURATION_S = 24 * 3600.0
# A file that unfolds into more than this is made to do harm: silence in FLAC takes 2 bytes a second at 8 kHz.
MOST_S_PER_BYTE, ALWAYS_S = 1.0, 600.0
LEAST_HZ, MOST_HZ = 2_000, 768_000  # no speech below; above, the resampler's filter alone fills the memory
MOST_MIXED_BY_FFMPEG = 8  # channels: beyond, it knows no layout
MOST_SPLIT = 32
MISSING_S, MISSING_SHARE = 1.0, 0.02  # a file may be so much shorter than it says: encoders round, pad and delay
HINT = "Check that the file plays and has sound, and that all of it was sent; then send it again"
CUT_MP4_HINT = "The index at the end of the file is missing: it was not sent whole, or its recorder was stopped hard"


def decode(source: Path) -> Iterator[Pcm]:
    """The first audio stream of `source`, mixed to mono, in blocks. Raises as `Sound` does."""
    for block in Sound(source):
        yield block.reshape(-1)


class Sound:
    """The first audio stream of a file at 16 kHz, mixed to one channel or split into all it has; read it once.

    Iterating gives blocks of int16 of shape (samples, channels), of a few seconds at the most. Broken packets are
    skipped, as players do, and a file that breaks off is read up to there: `warnings` says so in the end. Nothing but
    `source` is opened, whatever it refers to.

    Raises UnreadableMedia where nothing can be read at all, and TooLong for more than `max_duration_s` seconds, or
    for more than so few bytes can honestly hold.
    """

    def __init__(self, source: Path, channels: Channels = "mix", *, max_duration_s: float = MAX_DURATION_S) -> None:
        if channels not in get_args(Channels):
            raise InvalidInput(f"Channels are mixed or split, not {channels!r}", field="channels")
        self.claimed_s: float | None = None
        self.warnings: list[str] = []
        self._source, self._split, self._max_duration_s = source, channels == "split", max_duration_s
        self._n_channels: int | None = None  # of the first frame: later ones are cut or filled up to it
        self._n_samples = 0
        self._broken_packets, self._broken_end = 0, False

    @property
    def duration_s(self) -> float:
        """Seconds read so far."""
        return self._n_samples / SAMPLE_RATE

    def __iter__(self) -> Iterator[Block]:
        name = self._source.name
        try:
            file = self._source.open("rb")
            size = self._source.stat().st_size
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its name is none"
            raise UnreadableMedia(f"{name} cannot be opened: {reason}", hint=HINT) from error
        with file:
            if size == 0:
                raise UnreadableMedia(f"{name} is empty", hint=HINT)
            bound_s = min(self._max_duration_s, ALWAYS_S + MOST_S_PER_BYTE * size)
            for block in self._blocks(file):
                self._n_samples += len(block)
                if self.duration_s > bound_s:
                    raise TooLong(f"{name} holds more than {bound_s:.0f} s of sound", max_duration_s=bound_s)
                if len(block):
                    yield block
        if self._n_samples == 0:
            raise UnreadableMedia(f"{name} has an audio track, but no sound could be decoded from it", hint=HINT)
        self._warn()

    def _blocks(self, file: BinaryIO) -> Iterator[Block]:
        chain = links(file)
        if chain is None:
            yield from self._of_container(file)
            return
        for i, (start, end) in enumerate(chain.spans):
            try:
                yield from self._of_container(Span(file, start, end))  # type: ignore[arg-type]
            except UnreadableMedia:
                if i == 0:
                    raise
                self._broken_packets += 1
        self._broken_end = self._broken_end or not chain.whole

    def _of_container(self, file: BinaryIO) -> Iterator[Block]:
        name = self._source.name
        try:
            container = av.open(file, "r", metadata_errors="ignore", options=NOTHING_ELSE)
        except (av.FFmpegError, ValueError) as error:
            reason = error.strerror if isinstance(error, av.FFmpegError) else str(error)
            file.seek(4)
            hint = CUT_MP4_HINT if file.read(4) == b"ftyp" else HINT
            raise UnreadableMedia(f"{name} is not a media file that can be read: {reason}", hint=hint) from error
        with container:
            if not container.streams.audio:
                raise UnreadableMedia(f"{name} has no audio track", hint="Send a file in which somebody speaks")
            stream = container.streams.audio[0]
            self.claimed_s = claimed_s(file, container, stream)
            yield from self._resampled(self._frames(container, stream))

    def _frames(self, container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, ValueError):
                self._broken_end = True
                return
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):  # also a codec nobody knows: every packet of it ends here
                self._broken_packets += 1
                self._broken_end = True
                continue
            for frame in frames:
                self._broken_end = self._broken_end and not packet.size  # the last packet only empties the decoder
                yield frame

    def _resampled(self, frames: Iterator[av.AudioFrame]) -> Iterator[Block]:
        resampler, form = None, None
        for frame in frames:
            if not frame.samples:
                continue
            if form != _form(frame):  # files put one behind another, a phone switched: legal in MP3, AAC, TS
                if resampler is not None:
                    yield from self._shaped(resampler, None)
                resampler, form = self._resampler(frame), _form(frame)
            frame.pts = None  # the resampler would fill a gap in the time stamps with nothing at all
            assert resampler is not None
            yield from self._shaped(resampler, frame)
        if resampler is not None:
            yield from self._shaped(resampler, None)

    def _resampler(self, frame: av.AudioFrame) -> av.AudioResampler:
        name, n = self._source.name, frame.layout.nb_channels
        if not LEAST_HZ <= frame.sample_rate <= MOST_HZ:
            raise UnreadableMedia(f"{name} has {frame.sample_rate} samples a second, which is no speech", hint=HINT)
        if self._split and n > MOST_SPLIT:
            raise UnreadableMedia(f"{name} has {n} channels, more than {MOST_SPLIT}", hint="Mix them: channels=mix")
        if self._n_channels is None:
            self._n_channels = n if self._split else 1
        mono = n == 1 or (not self._split and n <= MOST_MIXED_BY_FFMPEG)
        # Packed: PyAV 18 reads beyond the planes of a frame with just 8 of them.
        return av.AudioResampler(format="s16", layout="mono" if mono else frame.layout, rate=SAMPLE_RATE)

    def _shaped(self, resampler: av.AudioResampler, frame: av.AudioFrame | None) -> Iterator[Block]:
        assert self._n_channels is not None
        try:
            resampled = resampler.resample(frame)
        except (av.FFmpegError, ValueError):  # a frame that contradicts itself
            self._broken_packets += 1
            return
        for part in resampled:
            if not part.samples:
                continue
            block: Block = np.asarray(part.to_ndarray(), np.int16).reshape(part.samples, -1)
            if not self._split and block.shape[1] > 1:
                block = np.rint(block.mean(axis=1, keepdims=True)).astype(np.int16)
            elif block.shape[1] != self._n_channels:
                block = np.pad(block[:, : self._n_channels], ((0, 0), (0, max(0, self._n_channels - block.shape[1]))))
            yield np.ascontiguousarray(block)

    def _warn(self) -> None:
        claimed_s, missing_s = self.claimed_s, (self.claimed_s or 0.0) - self.duration_s
        there = f"The file breaks off after {self.duration_s:.1f} s"
        if claimed_s is not None and missing_s > MISSING_S + MISSING_SHARE * claimed_s:
            self.warnings.append(f"{there} of the {claimed_s:.1f} s that it promises: what is there was transcribed.")
        elif self._broken_end:
            self.warnings.append(f"{there}: what is there was transcribed.")
        elif self._broken_packets:
            n = self._broken_packets
            self.warnings.append(f"The file is damaged in {n} place{'s' * (n > 1)}: a little sound is missing there.")


def _form(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
