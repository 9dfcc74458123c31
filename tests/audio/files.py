"""Media files of many kinds, made with FFmpeg's own encoders."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np

from callreel.audio.pcm import Pcm

TONE_HZ = 440
TONE_PEAK = 8000  # of 32768


def tone(duration_s: float, rate: int, peak: int = TONE_PEAK) -> Pcm:
    signal: Pcm = np.round(peak * np.sin(2 * np.pi * TONE_HZ * np.arange(round(duration_s * rate)) / rate)).astype(
        np.int16
    )
    return signal


def write_tone(
    path: Path,
    codec: str,
    *,
    rate: int,
    layout: str = "mono",
    duration_s: float = 3.0,
    options: dict[str, str] | None = None,
) -> Path:
    """A 440 Hz tone in a file of the kind that `path` is named for; `options` are the container's."""
    with av.open(str(path), "w", options=options or {}) as container:
        _add_tone(container, codec, rate, layout, duration_s)
    return path


def write_video(path: Path, *, sound: bool, duration_s: float = 2.0, sound_s: float | None = None) -> Path:
    """A black film with or without a tone, which may be of another length."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        if sound:
            _add_tone(container, "aac", 44_100, "stereo", duration_s if sound_s is None else sound_s)
        for _ in range(round(duration_s * 10)):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def _add_tone(container: av.container.OutputContainer, codec: str, rate: int, layout: str, duration_s: float) -> None:
    stream = container.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
    frame = av.AudioFrame.from_ndarray(
        np.repeat(tone(duration_s, rate), stream.layout.nb_channels)[None], format="s16", layout=layout
    )
    frame.sample_rate = rate
    resampler = av.AudioResampler(
        format=stream.format, layout=stream.layout, rate=rate, frame_size=stream.frame_size or 1024
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def write_wav(path: Path, signal: Pcm, *, rate: int = 16_000, channels: int = 1) -> Path:
    """Interleaved samples as a plain WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(signal.tobytes())
    return path
