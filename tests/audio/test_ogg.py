from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.audio.decode import Sound, decode
from callreel.audio.ogg import Span, links
from callreel.audio.pcm import SAMPLE_RATE, Pcm, samples
from tests.audio.files import TONE_PEAK, write_tone

FORMS = {
    "opus": ("libopus", 48_000, "mono"),
    "opus stereo": ("libopus", 48_000, "stereo"),
    "vorbis": ("vorbis", 44_100, "stereo"),
    "vorbis 16 kHz": ("vorbis", 16_000, "stereo"),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """2 s of tone in each form, as a file."""
    folder = tmp_path_factory.mktemp("ogg")
    made = {
        name: write_tone(folder / f"{i}.ogg", codec, rate=rate, layout=layout, duration_s=2.0)
        for i, (name, (codec, rate, layout)) in enumerate(FORMS.items())
    }
    return {name: path.read_bytes() for name, path in made.items()}


def peaks(pcm: Pcm, every_s: float) -> list[int]:
    """The loudest sample in the middle of each stretch of `every_s`."""
    starts = range(0, len(pcm) - samples(every_s) // 2, samples(every_s))
    return [int(np.abs(pcm[at + samples(0.5) : at + samples(1.5)]).max()) for at in starts]


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_a_chain_is_read_to_its_end(first: str, second: str, parts: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "chain.ogg"
    source.write_bytes(parts[first] + parts[second] + parts[first])
    sound = Sound(source)
    pcm = np.concatenate([block.reshape(-1) for block in sound])
    assert len(pcm) / SAMPLE_RATE == pytest.approx(6.0, abs=0.3)
    found = peaks(pcm, 2.0)
    assert len(found) == 3
    assert all(0.8 * TONE_PEAK < peak < 1.2 * TONE_PEAK for peak in found)
    assert sound.warnings == []


def test_a_chain_of_one_and_two_channels_is_split_by_its_first(parts: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "chain.ogg"
    source.write_bytes(parts["opus stereo"] + parts["opus"])
    pcm = np.concatenate(list(Sound(source, "split")))
    assert pcm.shape[1] == 2
    late = pcm[samples(2.5) : samples(3.5)]
    assert np.abs(late[:, 0]).max() > TONE_PEAK / 2
    assert np.abs(late[:, 1]).max() == 0


def test_a_link_that_cannot_be_read_costs_no_other(parts: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "chain.ogg"
    nonsense = parts["vorbis"].replace(b"vorbis", b"nonsen")
    source.write_bytes(parts["opus"] + nonsense + parts["opus"])
    sound = Sound(source)
    assert sum(map(len, sound)) / SAMPLE_RATE == pytest.approx(4.0, abs=0.2)
    assert len(sound.warnings) == 1


def test_one_that_breaks_off_says_so(parts: dict[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "cut.ogg"
    source.write_bytes(parts["opus"] + parts["opus"][:-300])
    sound = Sound(source)
    assert sum(map(len, sound)) / SAMPLE_RATE > 2.0
    assert "breaks off after" in sound.warnings[0]


def test_where_links_begin(parts: dict[str, bytes]) -> None:
    one, other = parts["opus"], parts["vorbis"]
    found = links(io.BytesIO(one + other + one))
    assert found is not None
    assert found.spans == (
        (0, len(one)),
        (len(one), len(one) + len(other)),
        (len(one) + len(other), 2 * len(one) + len(other)),
    )
    assert found.whole
    assert links(io.BytesIO(b"RIFF" + one)) is None


@given(st.lists(st.integers(0, 255), max_size=3), st.data())
def test_any_damage_gives_links_that_cover_the_file(
    parts: dict[str, bytes], values: list[int], data: st.DataObject
) -> None:
    body = bytearray(parts["opus"] * 2)
    for value in values:
        body[data.draw(st.integers(4, len(body) - 1))] = value
    body = body[: data.draw(st.integers(4, len(body)))]
    found = links(io.BytesIO(bytes(body)))
    assert found is not None
    bounds = [found.spans[0][0], *(end for _, end in found.spans)]
    assert bounds[0] == 0
    assert bounds[-1] == len(body)
    assert all(low < high for low, high in pairwise(bounds))


@given(st.binary(max_size=60), st.data())
def test_a_span_is_a_file_of_its_own(body: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))
    span, model = Span(io.BytesIO(body), start, end), io.BytesIO(body[start:end])
    steps = st.tuples(st.sampled_from(["read", "seek"]), st.integers(-1, 70), st.sampled_from([0, 1, 2]))
    for step, n, whence in data.draw(st.lists(steps, max_size=8)):
        if step == "read":
            assert span.read(n) == model.read(n)
        else:
            target = n if whence == 0 else min(n, 0)
            assert span.seek(max(0, target) if whence == 0 else 0, whence) == model.seek(
                max(0, target) if whence == 0 else 0, whence
            )
        assert span.tell() == model.tell()


def test_no_ogg_is_left_as_it_is(tmp_path: Path) -> None:
    source = write_tone(tmp_path / "voice.mp3", "libmp3lame", rate=44_100)
    assert sum(map(len, decode(source))) / SAMPLE_RATE == pytest.approx(3.0, abs=0.1)
