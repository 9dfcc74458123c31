"""Whatever bytes a stranger sends: sound, or a clear error; never anything else, and nothing left behind."""

from __future__ import annotations

import struct
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callreel.audio.decode import Sound
from callreel.audio.pcm import SAMPLE_RATE, Channels
from callreel.errors import UnreadableMedia
from tests.audio.files import write_tone

KINDS = {
    "wav": ("voice.wav", "pcm_s16le", 16_000, {}),
    "u-law": ("ulaw.wav", "pcm_mulaw", 8_000, {}),
    "flac": ("voice.flac", "flac", 16_000, {}),
    "mp3": ("voice.mp3", "libmp3lame", 16_000, {}),
    "ogg": ("voice.ogg", "libopus", 48_000, {}),
    "vorbis": ("voice.oga", "vorbis", 16_000, {}),
    "mp4": ("voice.mp4", "aac", 16_000, {}),
    "mp4 index first": ("first.mp4", "aac", 16_000, {"movflags": "faststart"}),
    "mp4 fragments": ("fragments.mp4", "aac", 16_000, {"movflags": "frag_keyframe+empty_moov"}),
    "webm": ("voice.webm", "libopus", 48_000, {}),
}
MOST_S = 60.0
HOSTILE = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("seeds")
    return {
        kind: write_tone(
            folder / name,
            codec,
            rate=rate,
            layout="stereo" if codec == "vorbis" else "mono",
            duration_s=0.7,
            options=options,
        ).read_bytes()
        for kind, (name, codec, rate, options) in KINDS.items()
    }


@st.composite
def mutations(draw: st.DrawFn, body: bytes) -> bytes:
    """`body` with a few wounds: mostly in its head, where the sizes and counts are."""
    for _ in range(draw(st.integers(1, 4))):
        if not body:
            break
        most = len(body) - 1 if draw(st.booleans()) else min(len(body) - 1, 400)
        at = draw(st.integers(0, most))
        wound = draw(st.sampled_from(["byte", "number", "cut", "drop", "double", "noise", "swap"]))
        if wound == "byte":
            body = body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :]
        elif wound == "number":
            number = struct.pack(draw(st.sampled_from("<>")) + "I", draw(st.sampled_from(HOSTILE)))
            body = body[:at] + number + body[at + 4 :]
        elif wound == "cut":
            body = body[:at]
        elif wound == "drop":
            body = body[:at] + body[at + draw(st.integers(1, 100)) :]
        elif wound == "double":
            body = body[:at] + body[at : at + draw(st.integers(1, 2_000))] * 2 + body[at:]
        elif wound == "noise":
            body = body[:at] + draw(st.binary(max_size=100)) + body[at:]
        else:
            body = body[at:] + body[:at]
    return body


def assert_read_or_refused(source: Path, body: bytes, channels: Channels) -> None:
    source.write_bytes(body)
    sound = Sound(source, channels, max_duration_s=MOST_S)
    try:
        n_samples = sum(len(block) for block in sound)
        assert 0 < n_samples <= MOST_S * SAMPLE_RATE
        assert sound.duration_s == n_samples / SAMPLE_RATE
        assert len(sound.warnings) <= 1
    except UnreadableMedia as error:
        assert error.hint or error.detail
    assert [f.path for f in psutil.Process().open_files() if f.path == str(source)] == []


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), channels=st.sampled_from(["mix", "split"]))
@pytest.mark.parametrize("kind", KINDS)
def test_wounded_files(
    kind: str, seeds: dict[str, bytes], tmp_path: Path, data: st.DataObject, channels: Channels
) -> None:
    assert_read_or_refused(tmp_path / KINDS[kind][0], data.draw(mutations(seeds[kind])), channels)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"RIFF\xff\xff\xff\xffWAVE", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"#EXTM3U\n"]),
    body=st.binary(max_size=2_000),
)
def test_random_bytes(tmp_path: Path, head: bytes, body: bytes) -> None:
    assert_read_or_refused(tmp_path / "random.wav", head + body, "mix")
