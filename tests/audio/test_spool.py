from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from callreel.audio import spool as spools
from callreel.audio.decode import Sound, decode
from callreel.audio.pcm import SAMPLE_RATE, Samples, samples
from callreel.audio.spool import SampleFile, fingerprint, spool
from callreel.errors import Cancelled, StorageUnavailable, UnreadableMedia
from tests.audio.files import tone, write_wav


def open_files_under(folder: Path) -> list[str]:
    return [file.path for file in psutil.Process().open_files() if Path(file.path).is_relative_to(folder)]


def test_a_spool_holds_what_decode_gives(toy_audio: Path, tmp_path: Path) -> None:
    source = toy_audio / "en_short.wav"
    pcm = np.concatenate(list(decode(source)))
    with spool(source, tmp_path) as found:
        (track,) = found.tracks
        assert found.n_samples == len(track) == len(pcm)
        np.testing.assert_array_equal(track[0 : len(pcm)], pcm)
        np.testing.assert_array_equal(track[100:200], pcm[100:200])
        np.testing.assert_array_equal(track[len(pcm) - 5 : len(pcm) + 5], pcm[-5:])
        assert len(track[7:3]) == 0
        assert found.warnings == ()
    assert open_files_under(tmp_path) == []
    spools.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_channels_are_apart(toy_audio: Path, tmp_path: Path) -> None:
    source = toy_audio / "call_stereo.flac"
    split = np.concatenate(list(Sound(source, "split")))
    with spool(source, tmp_path, "split") as found:
        assert len(found.tracks) == 2
        for track, channel in zip(found.tracks, split.T, strict=True):
            np.testing.assert_array_equal(track[0 : found.n_samples], channel)


def test_a_whole_spool_of_the_same_file_is_taken(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "tone.wav", tone(25.0, SAMPLE_RATE))
    calls: list[int] = []

    def written(tracks: Sequence[Samples], sound: Sound) -> None:
        assert len(tracks[0]) >= samples(sound.duration_s) - SAMPLE_RATE
        calls.append(len(tracks[0]))

    with spool(source, tmp_path / "work", on_written=written) as first:
        n = first.n_samples
    assert len(calls) == 2 and calls == sorted(calls)
    with spool(source, tmp_path / "work", on_written=written) as again:
        assert again.n_samples == n
    assert len(calls) == 2
    with spool(source, tmp_path / "work", "split", on_written=written):
        pass
    assert len(calls) == 4  # asked for otherwise
    write_wav(source, tone(24.0, SAMPLE_RATE))
    with spool(source, tmp_path / "work", "split") as other:
        assert other.n_samples == samples(24.0)


@pytest.mark.parametrize("damage", ["card", "samples", "no samples"])
def test_a_damaged_spool_is_made_anew(damage: str, tmp_path: Path) -> None:
    source = write_wav(tmp_path / "tone.wav", tone(1.0, SAMPLE_RATE))
    with spool(source, tmp_path / "work"):
        pass
    folder = tmp_path / "work" / spools.FOLDER
    if damage == "card":
        (folder / spools.CARD).write_bytes(b"{")
    elif damage == "samples":
        (folder / "0.s16").write_bytes(b"1234")
    else:
        (folder / "0.s16").unlink()
    with spool(source, tmp_path / "work") as found:
        assert len(found.tracks[0]) == SAMPLE_RATE


def test_what_a_killed_attempt_left_is_swept_away(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "tone.wav", tone(1.0, SAMPLE_RATE))
    part = tmp_path / "work" / f"{spools.FOLDER}.part"
    part.mkdir(parents=True)
    (part / "5.s16").write_bytes(b"half")
    with spool(source, tmp_path / "work"):
        pass
    assert sorted(p.name for p in (tmp_path / "work").rglob("*")) == ["0.s16", "spool", "spool.json"]


def test_a_spool_that_fails_leaves_nothing(tmp_path: Path) -> None:
    source, work = tmp_path / "letter.txt", tmp_path / "work"
    source.write_text("Dear Sir or Madam")
    work.mkdir()
    with pytest.raises(UnreadableMedia):
        spool(source, work)
    assert list(work.iterdir()) == []
    long = write_wav(tmp_path / "tone.wav", tone(25.0, SAMPLE_RATE))

    def stop(tracks: Sequence[Samples], sound: Sound) -> None:
        raise Cancelled()

    with pytest.raises(Cancelled):
        spool(long, work, on_written=stop)
    assert list(work.iterdir()) == []
    assert open_files_under(tmp_path) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from callreel.audio.spool import spool
from callreel.errors import StorageUnavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    spool(Path(sys.argv[1]), Path(sys.argv[2]))
except StorageUnavailable as error:
    print(error.hint)
"""


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    source, work = write_wav(tmp_path / "tone.wav", tone(25.0, SAMPLE_RATE)), tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", FULL_DISK, str(source), str(work)]  # a file may not grow: as good as a full disk
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Free space" in done.stdout
    assert list(work.iterdir()) == []


def test_no_folder_to_write_in(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "tone.wav", tone(1.0, SAMPLE_RATE))
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable):
        spool(source, tmp_path / "file")


def test_a_growing_file_can_be_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "growing.s16"
    with path.open("wb", buffering=0) as file:
        reader = SampleFile(path)
        assert len(reader) == 0 and len(reader[0:10]) == 0
        file.write(np.arange(5, dtype=np.int16).tobytes() + b"\x01")  # and half a sample
        assert len(reader) == 5
        assert reader[3:10].tolist() == [3, 4]
        reader.close()
        reader.close()


def test_a_fingerprint_names_the_content(tmp_path: Path) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    body = bytes(3_000_000)
    one.write_bytes(body)
    shutil.copy(one, same)
    other.write_bytes(body[:-1] + b"x")
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
