from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from callreel.audio.decode import Sound, decode
from callreel.audio.pcm import SAMPLE_RATE, Pcm, samples
from callreel.errors import InvalidInput, TooLong, UnreadableMedia
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


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_film_that_goes_on_without_sound_is_whole(name: str, tmp_path: Path) -> None:
    pcm, warnings = read(write_video(tmp_path / name, sound=True, duration_s=9.0, sound_s=2.0))
    assert len(pcm) / SAMPLE_RATE == pytest.approx(2.0, abs=0.05)
    assert warnings == []


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


def read(source: Path, channels: Any = "mix") -> tuple[np.ndarray[Any, Any], list[str]]:
    sound = Sound(source, channels)
    return np.concatenate(list(sound)), sound.warnings


@pytest.mark.parametrize(
    ("name", "codec", "rate", "options"),
    [
        ("voice.wav", "pcm_s16le", 16_000, {}),
        ("voice.flac", "flac", 16_000, {}),
        ("voice.mp3", "libmp3lame", 44_100, {}),
        ("voice.ogg", "libopus", 48_000, {}),
        ("voice.mka", "libopus", 48_000, {}),
        ("voice.webm", "libopus", 48_000, {}),
        ("voice.adts", "aac", 44_100, {}),
        ("index first.mp4", "aac", 44_100, {"movflags": "faststart"}),
        ("fragments.mp4", "aac", 44_100, {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_file_that_breaks_off_says_where(
    name: str, codec: str, rate: int, options: dict[str, str], tmp_path: Path
) -> None:
    source = write_tone(tmp_path / name, codec, rate=rate, duration_s=8.0, options=options)
    whole, warnings = read(source)
    assert len(whole) / SAMPLE_RATE == pytest.approx(8.0, abs=0.1)
    assert warnings == []
    body = source.read_bytes()
    source.write_bytes(body[: len(body) // 2 + 13])
    half, (warning,) = read(source)
    assert 2.5 < len(half) / SAMPLE_RATE < 5.5
    assert warning.startswith(f"The file breaks off after {len(half) / SAMPLE_RATE:.1f} s")
    np.testing.assert_array_equal(half[: len(half) - 8192], whole[: len(half) - 8192])


def test_an_mp4_without_its_index_says_what_is_missing(tmp_path: Path) -> None:
    source = write_tone(tmp_path / "voice.m4a", "aac", rate=44_100)
    body = source.read_bytes()
    source.write_bytes(body[: len(body) // 2])
    with pytest.raises(UnreadableMedia) as caught:
        read(source)
    assert "index at the end of the file is missing" in caught.value.hint


def test_damage_in_the_middle_is_told(toy_audio: Path, tmp_path: Path) -> None:
    body = bytearray((toy_audio / "en_digits.flac").read_bytes())
    body[len(body) // 2] ^= 0xFF
    broken = tmp_path / "broken.flac"
    broken.write_bytes(body)
    assert read(toy_audio / "en_digits.flac")[1] == []
    pcm, warnings = read(broken)
    assert len(pcm) > samples(4.0)
    assert all("damaged" in warning for warning in warnings)


def wav_that_claims(path: Path, data_bytes: int, *, n_bytes: int = 1024) -> Path:
    """The first `n_bytes` of a WAV whose header speaks of `data_bytes`."""
    body = bytearray(write_wav(path, tone(1.0, SAMPLE_RATE)).read_bytes()[:n_bytes])
    at = body.index(b"data") + 4
    body[at : at + 4] = struct.pack("<I", data_bytes)
    path.write_bytes(body)
    return path


@pytest.mark.parametrize("data_bytes", [2_073_600_000, 2_880_000_000, 4_032_000_000, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_what_a_small_file_claims_is_not_made(data_bytes: int, tmp_path: Path) -> None:
    began = time.process_time()
    pcm, (warning,) = read(wav_that_claims(tmp_path / "hours.wav", data_bytes))
    assert len(pcm) < 512
    assert warning.startswith("The file breaks off after 0.0 s")
    assert f"of the {data_bytes / 2 / SAMPLE_RATE:.1f} s that it promises" in warning
    assert time.process_time() - began < 5


def test_a_small_wav_of_64_bits_that_claims_100_hours(tmp_path: Path) -> None:
    source = wav_that_claims(tmp_path / "hours.wav", 0xFFFF_FFFF)
    body, long_size = source.read_bytes(), 100 * 3600 * 2 * SAMPLE_RATE
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, long_size + 72, long_size, long_size // 2, 0)
    source.write_bytes(b"RF64" + body[4:12] + ds64 + body[12:])
    pcm, (warning,) = read(source)
    assert len(pcm) < 512
    assert "of the 360000.0 s that it promises" in warning


def test_a_small_mp4_that_claims_100_hours(tmp_path: Path) -> None:
    options = {"movflags": "faststart"}
    source = write_tone(tmp_path / "hours.mp4", "aac", rate=8_000, duration_s=1.0, options=options)
    body = bytearray(source.read_bytes())
    hours = 100 * 3600 * 8_000
    mdhd, stts, stsz = (body.index(name) for name in (b"mdhd", b"stts", b"stsz"))
    body[mdhd + 20 : mdhd + 24] = struct.pack(">I", hours)
    body[stts + 12 : stts + 16] = struct.pack(">I", hours // 1024)  # so many packets, all alike
    body[stsz + 8 : stsz + 16] = struct.pack(">II", 8, hours // 1024)  # of 8 bytes each
    source.write_bytes(body[: max(1024, stsz + 64)])
    began, sound = time.process_time(), Sound(source)
    try:
        assert sum(map(len, sound)) < samples(2.0)
        assert "breaks off" in sound.warnings[0]
    except UnreadableMedia as error:
        assert error.hint
    assert time.process_time() - began < 10


@pytest.mark.parametrize("data_bytes", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_recorder_that_wrote_into_a_pipe_promises_nothing(data_bytes: int, tmp_path: Path) -> None:
    pcm, warnings = read(wav_that_claims(tmp_path / "pipe.wav", data_bytes, n_bytes=16_044))
    assert len(pcm) == samples(0.5)
    assert warnings == []


def flac_of_silence(path: Path, *, rate: int, n_frames: int) -> Path:
    """FLAC that unfolds most of all: each frame of 11 bytes is 65,535 samples of the one value."""
    streaminfo = struct.pack(">HH", 65_535, 65_535) + bytes(6)
    streaminfo += struct.pack(">Q", rate << 44 | 15 << 36) + bytes(16)  # mono, 16 bit, length unknown
    frames = [_flac_frame(i) for i in range(n_frames)]
    path.write_bytes(b"fLaC" + bytes([0x80]) + len(streaminfo).to_bytes(3, "big") + streaminfo + b"".join(frames))
    return path


def _flac_frame(number: int) -> bytes:
    coded = bytes([number]) if number < 128 else bytes([0xC0 | number >> 6, 0x80 | number & 0x3F])
    head = bytes([0xFF, 0xF8, 0x70, 0x08]) + coded + struct.pack(">H", 65_534)
    head += bytes([_crc(head, 0x07, 8)])
    body = head + bytes([0x00]) + bytes(2)  # one channel whose every sample is 0
    return body + struct.pack(">H", _crc(body, 0x8005, 16))


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    value, top, mask = 0, 1 << bits - 1, (1 << bits) - 1
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & mask
    return value


def test_a_file_that_unfolds_without_end_is_stopped(tmp_path: Path) -> None:
    bomb = flac_of_silence(tmp_path / "bomb.flac", rate=2_000, n_frames=1_000)
    assert bomb.stat().st_size < 20_000  # and 9 hours of silence
    with pytest.raises(TooLong, match="holds more than") as caught:
        for _ in Sound(bomb, max_duration_s=120.0):
            pass
    assert caught.value.detail["max_duration_s"] == 120.0
    (tmp_path / "small.flac").write_bytes(bomb.read_bytes()[:600])
    with pytest.raises(TooLong):  # far within the time that is allowed, but not out of 600 bytes
        list(decode(tmp_path / "small.flac"))


@pytest.mark.parametrize("rate", [1, 1_000, 1_000_000])
def test_a_rate_of_no_speech_is_refused(rate: int, tmp_path: Path) -> None:
    source = flac_of_silence(tmp_path / "odd.flac", rate=min(rate, 0xFFFFF), n_frames=3)
    with pytest.raises(UnreadableMedia, match=r"samples a second|no sound|no media|not a media"):
        list(decode(source))


def test_more_than_the_time_that_is_allowed(tmp_path: Path) -> None:
    source = write_tone(tmp_path / "long.mp3", "libmp3lame", rate=44_100, duration_s=8.0)
    with pytest.raises(TooLong, match="more than 5 s"):
        list(Sound(source, max_duration_s=5.0))
    assert sum(map(len, Sound(source, max_duration_s=8.2))) / SAMPLE_RATE == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 16])
def test_channels_are_split(n: int, tmp_path: Path) -> None:
    rate = 96_000
    peaks = [1_000 * (i + 1) for i in range(n)]
    signal = np.stack([tone(1.0, rate, peak) for peak in peaks], axis=1).reshape(-1)
    source = write_wav(tmp_path / "many.wav", signal, rate=rate, channels=n)
    pcm, warnings = read(source, "split")
    assert pcm.shape == (pytest.approx(SAMPLE_RATE, abs=1), n)
    assert warnings == []
    for channel, peak in zip(pcm.T, peaks, strict=True):
        assert np.abs(channel[1000:-1000]).max() == pytest.approx(peak, rel=0.02)
    mix, _ = read(source)
    assert mix.shape == (pytest.approx(SAMPLE_RATE, abs=1), 1)
    assert np.abs(mix).max() > 500


@pytest.mark.parametrize(("codec", "layout"), [("aac", "5.1"), ("aac", "7.1"), ("libopus", "7.1")])
def test_surround_of_planes_is_split(codec: str, layout: str, tmp_path: Path) -> None:
    source = write_tone(tmp_path / "surround.mka", codec, rate=48_000, layout=layout, duration_s=1.0)
    pcm, _ = read(source, "split")
    assert pcm.shape[1] == (6 if layout == "5.1" else 8)
    assert np.abs(pcm[4000:12_000]).max(axis=0).max() > TONE_PEAK / 2


def test_too_many_channels_to_split(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "many.wav", np.zeros(64 * 100, np.int16), channels=64)
    with pytest.raises(UnreadableMedia, match="64 channels") as caught:
        read(source, "split")
    assert "mix" in caught.value.hint
    assert len(read(source)[0]) == 100
    with pytest.raises(InvalidInput, match="'left'"):
        Sound(source, "left")  # type: ignore[arg-type]


def test_a_name_that_is_none() -> None:
    with pytest.raises(UnreadableMedia, match="cannot be opened"):
        list(decode(Path("a\0b.wav")))
    with pytest.raises(UnreadableMedia, match="cannot be opened"):
        list(decode(Path("x" * 300 + ".wav")))


@pytest.mark.parametrize(
    "name",
    [
        "example.mp4",
        "hotwords.mp3",
        "jfk.flac",
        "stereo_diarization.wav",
        "mattermost/speech_0.ogg",
        "calls/call_a_8k_ulaw.wav",
        "diarization/dev00.wav",
        "telephony8k/en-US_Broadband_sample1.wav",
    ],
)
def test_real_recordings_are_whole(name: str, shared_audio: Path) -> None:
    pcm, warnings = read(shared_audio / name)
    assert len(pcm) > SAMPLE_RATE
    assert warnings == []
