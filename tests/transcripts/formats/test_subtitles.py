"""srt and vtt, read back by a small parser that knows nothing of how they are written."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.text import Segment
from callreel.transcripts.formats import FORMATS, FormatOptions
from tests.transcripts.formats.samples import CALL, TRANSCRIPT, conversation, said, text_of
from tests.transcripts.formats.test_cues import transcripts

BUDGET = "We could move the launch to October because of that."
TALK = conversation(BUDGET, "And what do they think?", "Nothing at all.")


@dataclass(frozen=True)
class Shown:
    start: int
    end: int
    lines: list[str]
    voice: str | None = None


def milliseconds(stamp: str) -> int:
    hours, minutes, seconds, ms = map(int, re.fullmatch(r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})", stamp).groups())  # type: ignore[union-attr]
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms


def read_srt(text: str) -> list[Shown]:
    shown = []
    for number, block in enumerate(filter(None, text.split("\n\n")), 1):
        index, times, *lines = block.rstrip("\n").split("\n")
        start, end = times.split(" --> ")
        assert int(index) == number and "," in start and lines
        shown.append(Shown(milliseconds(start), milliseconds(end), lines))
    return shown


def read_vtt(text: str) -> tuple[list[Shown], list[str]]:
    head, *blocks = text.split("\n\n")
    assert head.rstrip("\n") == "WEBVTT"
    shown, notes = [], []
    for block in blocks:
        times, *lines = block.rstrip("\n").split("\n")
        if times.startswith("NOTE "):
            notes.append(times[5:])
            continue
        start, end = times.split(" --> ")
        body = "\n".join(lines)
        assert "." in start and "-->" not in body
        voice, body = re.fullmatch(r"(?:<v ([^>]*)>)?([^<>]*)", body, re.DOTALL).groups()  # type: ignore[union-attr]
        shown.append(
            Shown(
                milliseconds(start), milliseconds(end), html.unescape(body).split("\n"), voice and html.unescape(voice)
            )
        )
    return shown, notes


def srt(*segments: Segment, options: FormatOptions = FormatOptions()) -> list[Shown]:  # noqa: B008
    return read_srt(FORMATS["srt"].render(CALL, TRANSCRIPT, segments, options).decode())


def vtt(*segments: Segment) -> list[Shown]:
    return read_vtt(FORMATS["vtt"].render(CALL, TRANSCRIPT, segments).decode())[0]


def test_srt_names_a_speaker_when_another_begins() -> None:
    assert srt(*TALK, said("Well.", 9.0, seq=3)) == [
        Shown(0, 3000, ["A: We could move the launch", "to October because of that."]),
        Shown(3500, 5000, ["B: And what do they think?"]),
        Shown(5500, 6500, ["A: Nothing at all."]),
        Shown(9000, 10000, ["Well."]),
    ]


def test_vtt_tags_each_cue_with_its_voice() -> None:
    assert [(shown.voice, shown.lines) for shown in vtt(*TALK)] == [
        ("A", ["We could move the launch", "to October because of that."]),
        ("B", ["And what do they think?"]),
        ("A", ["Nothing at all."]),
    ]


def test_vtt_escapes_what_would_be_markup() -> None:
    call = replace(CALL, speakers={"A": "R&D <x>"})
    body = FORMATS["vtt"].render(call, replace(TRANSCRIPT, warnings=["a --> b"]), [said("1 < 2 && 3 --> 4")]).decode()
    assert "<v R&amp;D &lt;x&gt;>1 &lt; 2 &amp;&amp; 3 --&gt; 4" in body
    shown, notes = read_vtt(body)
    assert (shown[0].voice, shown[0].lines) == ("R&D <x>", ["1 < 2 && 3 --> 4"])
    assert notes == ["a --&gt; b"]


def test_an_arrow_in_the_text_is_no_time_of_an_srt() -> None:
    assert srt(said("from A --> B", speaker=None))[0].lines == ["from A -> B"]


@pytest.mark.parametrize("read", [srt, vtt])
def test_times_beyond_a_hundred_hours(read: object) -> None:
    shown = read(said("still here", 100 * 3600 + 61.5))  # type: ignore[operator]
    assert (shown[0].start, shown[0].end) == (360_061_500, 360_062_500)


def test_long_hours_are_written_out() -> None:
    assert b"100:01:01,500 --> 100:01:02,500" in FORMATS["srt"].render(
        CALL, TRANSCRIPT, [said("still here", 360_061.5)]
    )


def test_without_speakers_nobody_is_named() -> None:
    off = FormatOptions(speakers=False)
    assert srt(TALK[1], options=off)[0].lines == ["And what do they think?"]
    assert "<v" not in FORMATS["vtt"].render(CALL, TRANSCRIPT, TALK, off).decode()


@given(transcripts())
def test_both_hold_every_word_once_and_in_order(segments: list[Segment]) -> None:
    ordered = sorted(segments, key=lambda s: (s.start, s.seq))
    shown = vtt(*ordered)
    for voice in "AB":
        heard = "".join(text_of([s for s in ordered if s.speaker == voice]))
        assert "".join("".join(s.lines) for s in shown if s.voice == voice).replace(" ", "") == heard
    plain = srt(*ordered, options=FormatOptions(speakers=False))
    assert [(s.start, s.end) for s in plain] == [(s.start, s.end) for s in shown]


@given(st.lists(st.sampled_from(["Yes.", BUDGET, "word " * 30]), max_size=6))
def test_a_name_fits_into_the_line(heard: list[str]) -> None:
    for shown in srt(*conversation(*heard)):
        assert len(shown.lines) <= 2 and all(len(line) <= 42 for line in shown.lines)
