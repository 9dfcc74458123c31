from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from callreel.audio.decode import decode
from callreel.audio.pcm import SAMPLE_RATE, Pcm, samples
from callreel.errors import UnreadableMedia
from tests.audio.files import TONE_HZ, TONE_PEAK, tone, write_tone, write_video, write_wav

LONGEST_BLOCK = 2 * SAMPLE_RATE


def decoded(source: Path) -> Pcm:
    blocks = list(decode(source))
    assert max(len(block) for block in blocks) < LONGEST_BLOCK
    assert all(block.dtype == np.int16 and block.ndim == 1 for block in blocks)
    return np.concatenate(blocks)


def assert_tone(pcm: Pcm, *, duration_s: float, slack_s: float = 0.0) -> None:
    """`pcm` is the tone of `tests.audio.files`, as long as it was and as loud."""
    assert len(pcm) / SAMPLE_RATE == pytest.approx(duration_s, abs=slack_s + 1 / SAMPLE_RATE)
    middle = pcm[samples(0.5) : samples(1.5)].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle))
    assert int(spectrum.argmax()) == TONE_HZ  # one second: a bin a hertz
    assert np.sqrt(2 * np.square(middle).mean()) == pytest.approx(TONE_PEAK, rel=0.05)


def open_files_under(folder: Path) -> list[str]:
    return [file.path for file in psutil.Process().open_files() if Path(file.path).is_relative_to(folder)]


def assert_unreadable(source: Path, because: str) -> None:
    with pytest.raises(UnreadableMedia, match=because) as caught:
        list(decode(source))
    assert source.name in str(caught.value)
    assert str(source.parent) not in str(caught.value)  # where we keep a client's file is no business of the client
    assert open_files_under(source.parent) == []


@pytest.mark.parametrize("name", ["en_short.wav", "en_digits.flac"])
def test_recordings_are_as_long_as_they_are(name: str, toy_audio: Path, references: dict[str, Any]) -> None:
    pcm = decoded(toy_audio / name)
    assert len(pcm) == samples(references[name]["duration"])
    assert np.abs(pcm).max() > 1000


def test_16_khz_mono_is_left_as_it_is(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-32768, 32768, 40_000).astype(np.int16)
    np.testing.assert_array_equal(decoded(write_wav(tmp_path / "noise.wav", noise)), noise)


def test_stereo_becomes_the_mean_of_both(toy_audio: Path) -> None:
    source = toy_audio / "call_stereo.flac"
    with av.open(str(source)) as container:
        resampler = av.AudioResampler(format="s16p")
        channels = np.concatenate([r.to_ndarray() for f in container.decode(audio=0) for r in resampler.resample(f)], 1)
    mean = channels.astype(np.float64).mean(axis=0)
    assert np.abs(channels[0].astype(np.int32) - channels[1]).max() > 1000  # two speakers, not one twice
    mix = decoded(source)
    assert len(mix) == len(mean)
    assert np.abs(mix - mean).max() <= 1.0


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "slack_s"),
    [
        ("ulaw.wav", "pcm_mulaw", 8_000, "mono", 0.0),
        ("alaw.wav", "pcm_alaw", 8_000, "stereo", 0.0),
        ("voice.mp3", "libmp3lame", 44_100, "stereo", 0.0),
        ("voice.ogg", "libopus", 48_000, "mono", 0.0),
        ("voice.oga", "vorbis", 44_100, "stereo", 0.1),
        ("voice.m4a", "aac", 44_100, "mono", 0.05),
        ("voice.webm", "libopus", 48_000, "stereo", 0.05),
    ],
)
def test_formats(name: str, codec: str, rate: int, layout: str, slack_s: float, tmp_path: Path) -> None:
    source = write_tone(tmp_path / name, codec, rate=rate, layout=layout, duration_s=3.0)
    assert_tone(decoded(source), duration_s=3.0, slack_s=slack_s)


def test_a_film_is_its_sound(tmp_path: Path) -> None:
    assert_tone(decoded(write_video(tmp_path / "film.mp4", sound=True)), duration_s=2.0, slack_s=0.05)


@pytest.mark.parametrize("channels", [3, 4, 6, 8])
def test_more_channels_than_two(channels: int, tmp_path: Path) -> None:
    source = write_wav(tmp_path / "many.wav", np.repeat(tone(1.0, SAMPLE_RATE), channels), channels=channels)
    pcm = decoded(source)
    assert len(pcm) == SAMPLE_RATE
    assert np.abs(pcm).max() > TONE_PEAK / 4


def test_files_put_one_behind_another_with_another_rate(tmp_path: Path) -> None:
    mono = write_tone(tmp_path / "mono.mp3", "libmp3lame", rate=44_100)
    stereo = write_tone(tmp_path / "stereo.mp3", "libmp3lame", rate=48_000, layout="stereo")
    both = tmp_path / "both.mp3"
    both.write_bytes(mono.read_bytes() + stereo.read_bytes())
    pcm = decoded(both)
    assert_tone(pcm, duration_s=6.0, slack_s=0.1)
    assert_tone(pcm[-samples(2.5) :], duration_s=2.5)


def test_the_length_costs_no_memory(tmp_path: Path) -> None:
    source = tmp_path / "long.wav"
    write_wav(source, np.random.default_rng(0).integers(-3000, 3000, samples(300)).astype(np.int16))
    tracemalloc.start()
    try:
        total = sum(len(block) for block in decode(source))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == samples(300)
    assert peak_bytes < 500_000  # of 9.6 MB


@pytest.mark.parametrize("name", ["en_short.wav", "en_digits.flac"])
def test_a_truncated_file_is_read_up_to_there(name: str, toy_audio: Path, tmp_path: Path) -> None:
    body = (toy_audio / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(body[: len(body) // 2 + 13])
    whole, half = decoded(toy_audio / name), decoded(cut)
    assert 0.3 * len(whole) < len(half) < 0.7 * len(whole)
    np.testing.assert_array_equal(half[: len(half) - 4096], whole[: len(half) - 4096])
    assert open_files_under(tmp_path) == []


def test_broken_packets_are_skipped(toy_audio: Path, tmp_path: Path) -> None:
    body = bytearray((toy_audio / "en_digits.flac").read_bytes())
    for at in np.random.default_rng(1).integers(5_000, len(body), 60):
        body[at] ^= 0xFF
    broken = tmp_path / "broken.flac"
    broken.write_bytes(body)
    whole = len(decoded(toy_audio / "en_digits.flac"))
    assert 0.3 * whole < len(decoded(broken)) <= whole


def test_a_text_is_no_media_file(tmp_path: Path) -> None:
    source = tmp_path / "letter.wav"
    source.write_text("Dear Sir or Madam, " * 500)
    assert_unreadable(source, "not a media file")


def test_an_empty_file(tmp_path: Path) -> None:
    source = tmp_path / "empty.wav"
    source.touch()
    assert_unreadable(source, "is empty")


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    assert_unreadable(tmp_path / "none.wav", "cannot be opened")
    (tmp_path / "folder").mkdir()
    assert_unreadable(tmp_path / "folder", "cannot be opened")


def test_a_silent_film(tmp_path: Path) -> None:
    assert_unreadable(write_video(tmp_path / "film.mp4", sound=False), "no audio track")


def test_a_header_and_nothing_behind_it(tmp_path: Path) -> None:
    assert_unreadable(write_wav(tmp_path / "header.wav", np.zeros(0, np.int16)), "no sound could be decoded")


def test_a_codec_nobody_knows(tmp_path: Path) -> None:
    body = bytearray(write_wav(tmp_path / "plain.wav", tone(1.0, SAMPLE_RATE)).read_bytes())
    at = body.index(b"fmt ") + 8
    body[at : at + 2] = struct.pack("<H", 0x9999)
    strange = tmp_path / "strange.wav"
    strange.write_bytes(body)
    assert_unreadable(strange, "no sound could be decoded")


@pytest.mark.parametrize(
    ("name", "playlist"),
    [
        ("upload.wav", "ffconcat version 1.0\nfile other.mp3\n"),
        ("upload.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nother.mp3\n#EXT-X-ENDLIST\n"),
    ],
)
def test_a_playlist_opens_no_other_file(name: str, playlist: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "other.mp3", "libmp3lame", rate=44_100)  # somebody else's
    source = tmp_path / name
    source.write_text(playlist)
    assert_unreadable(source, "not a media file")


def test_a_decode_given_up_closes_the_file(toy_audio: Path) -> None:
    blocks = decode(toy_audio / "en_long_50s.flac")
    next(blocks)
    assert open_files_under(toy_audio) != []
    blocks.close()  # type: ignore[attr-defined]
    assert open_files_under(toy_audio) == []
