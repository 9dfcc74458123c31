"""Files that people send by mistake, and files that are made to do harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from callreel.audio.pcm import SAMPLE_RATE
from tests.audio.files import tone, write_tone, write_video, write_wav
from tests.audio.test_decode import flac_of_silence, wav_that_claims
from tests.server.helpers import samples_of

SECRET = "the-secret-of-another-file"


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that cannot be transcribed: its error's code, and a word of what is said about it."""

    code: str
    says: str
    make: Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that can: a word of its warning, "" for none."""

    warning: str
    make: Callable[[Path], object]


def speech(path: Path) -> None:
    write_wav(path, samples_of(Path(__file__).parents[1] / "data/audio/en_short.wav"))


def cut(path: Path, codec: str, share: float) -> None:
    write_tone(
        path, codec, rate=44_100, duration_s=20.0, options={"movflags": "faststart"} if path.suffix == ".mp4" else {}
    )
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])


def playlist(text: str) -> Callable[[Path], object]:
    """Text that points at a real recording beside it."""

    def make(path: Path) -> None:
        other = path.with_name(f"{SECRET}.wav")
        speech(other)
        path.write_text(text.format(other=other, name=other.name))

    return make


FILES: dict[str, Refused | Taken] = {
    "empty.wav": Refused("unreadable_media", "empty", Path.touch),
    "text.wav": Refused("unreadable_media", "not a media file", lambda path: path.write_text("hello world\n" * 99)),
    "zeros.mp3": Refused("unreadable_media", "", lambda path: path.write_bytes(bytes(100_000))),
    "silent film.mp4": Refused("unreadable_media", "no audio track", lambda path: write_video(path, sound=False)),
    "cut film.mp4": Taken("breaks off", lambda path: cut(path, "aac", 0.6)),
    "cut.mp3": Taken("breaks off", lambda path: cut(path, "mp3", 0.6)),
    "index lost.mp4": Refused(
        "unreadable_media",
        "not a media file",
        lambda path: (write_tone(path, "aac", rate=44_100), path.write_bytes(path.read_bytes()[:-2000])),
    ),
    "eight.wav": Taken("", lambda path: write_wav(path, np.repeat(tone(2.0, 96_000), 8), rate=96_000, channels=8)),
    "hours.wav": Taken("breaks off", lambda path: wav_that_claims(path, 2 * SAMPLE_RATE * 3600 * 18)),
    "bomb.flac": Refused("too_long", "", lambda path: flac_of_silence(path, rate=2_000, n_frames=1_000)),
    "list.m3u8": Refused(
        "unreadable_media", "", playlist("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{other}\n#EXT-X-ENDLIST\n")
    ),
    "list as.wav": Refused("unreadable_media", "", playlist("ffconcat version 1.0\nfile '{other}'\n")),
    "list beside.mp4": Refused("unreadable_media", "", playlist("ffconcat version 1.0\nfile {name}\n")),
    "link.mp3": Refused("unreadable_media", "", lambda path: path.write_text("concat:/etc/passwd|/etc/hosts")),
    "session.sdp": Refused(
        "unreadable_media",
        "",
        lambda path: path.write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"),
    ),
}
NAMES = [
    "../../../../tmp/evil.wav",
    "..\\..\\evil.wav",
    "a\0b.wav",
    "x" * 300 + ".wav",
    "a\r\nX-Evil: 1.wav",
    '"; evil="',
    "",
]


def make(name: str, folder: Path) -> Path:
    path = folder / name
    FILES[name].make(path)
    return path
