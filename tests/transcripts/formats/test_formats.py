from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from io import BytesIO

import docx
import pytest

from callreel.calls.store import Call, Track
from callreel.errors import ExtraMissing, InvalidInput
from callreel.text import Segment
from callreel.transcripts.formats import FORMATS, FormatOptions, format_named
from tests.transcripts.formats.samples import CALL, TRANSCRIPT, conversation, said
from tests.transcripts.segments import spoken

CALLER, AGENT = Track("t1", "c1", "caller", "A", 0), Track("t2", "c1", "agent", None, 1)
TIMED = FormatOptions(timestamps=True)
QUIET = replace(TRANSCRIPT, warnings=[])


def written(name: str, call: Call, *segments: Segment, options: FormatOptions = FormatOptions()) -> str:  # noqa: B008
    return FORMATS[name].render(call, QUIET, segments, options).decode()


def test_every_format_is_registered_under_its_name() -> None:
    assert list(FORMATS) == ["txt", "srt", "vtt", "json", "tsv", "md", "docx"]
    for name, format in FORMATS.items():
        assert format.name == format.extension == name
        assert format_named(name) is format
        assert re.fullmatch(r"(text|application)/[a-z.-]+(; charset=utf-8)?", format.media_type)


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput) as refused:
        format_named("pdf")
    assert refused.value.hint == "Formats: txt, srt, vtt, json, tsv, md, docx"


@pytest.mark.parametrize(
    ("name", "empty"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n"), ("tsv", "start\tend\ttext\n")]
)
def test_an_empty_transcript_is_a_valid_file(name: str, empty: str) -> None:
    assert written(name, CALL) == written(name, CALL, spoken(text=" ", words=())) == empty
    assert isinstance(FORMATS["docx"].render(CALL, TRANSCRIPT, []), bytes)


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_chokes_on_what_text_may_hold(name: str) -> None:
    nasty = "\x00 nul \x0b\x1b[31m --> <b>&amp;\r\n\r\n1\r\n\u2028 \ufeff\t| `x` **y**"
    call = replace(CALL, title=nasty + "\udcff", speakers={"A": nasty})
    body = FORMATS[name].render(call, replace(TRANSCRIPT, warnings=[nasty]), [spoken(text=nasty, words=())], TIMED)
    assert b"nul" in body or name == "docx"


def test_segments_need_not_come_in_order() -> None:
    first, second = said("first", 1.0), said("second", 5.0, seq=1)
    for name in ("txt", "srt", "vtt", "tsv", "md"):
        assert written(name, CALL, second, first) == written(name, CALL, first, second)


def test_txt_is_a_line_a_segment() -> None:
    heard = [
        spoken(speaker=None),
        spoken(speaker=None, seq=1, text=""),
        spoken(speaker=None, seq=2, text="Héllo again"),
    ]
    assert written("txt", CALL, *heard) == "Hello there\nHéllo again\n"


def test_txt_names_speakers_as_the_call_does() -> None:
    named = replace(CALL, speakers={"A": "Ada"})
    heard = spoken(), spoken(seq=1, speaker="B")
    assert written("txt", named, *heard) == "Ada: Hello there\nB: Hello there\n"
    assert written("txt", named, *heard, options=FormatOptions(speakers=False)) == "Hello there\nHello there\n"


def test_txt_names_tracks_where_there_are_several() -> None:
    call = replace(CALL, tracks=(CALLER, AGENT), speakers={"A": "Ada"})
    heard = [spoken(speaker=None), spoken(speaker=None, seq=1, track="agent", start=0.6)]
    assert written("txt", call, *heard) == "Ada: Hello there\nagent: Hello there\n"


def test_txt_says_when_if_it_is_asked() -> None:
    assert written("txt", CALL, said("Late", 360_001.7), options=TIMED) == "[100:00:01] A: Late\n"


def test_tsv_is_what_openais_whisper_writes() -> None:
    heard = said("Hello  there", 1.5), said("A\ttab", 3.0004, seq=1)
    assert written("tsv", CALL, *heard) == "start\tend\ttext\n1500\t2100\tHello there\n3000\t3600\tA tab\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_tsv_holds_no_formula(text: str) -> None:
    assert written("tsv", CALL, said(text, 0.0)).splitlines()[1].split("\t")[2] == f" {text}"


def test_json_says_everything_in_the_words_of_the_api() -> None:
    document = json.loads(FORMATS["json"].render(CALL, TRANSCRIPT, [spoken()]))
    assert document == {
        "call_id": "c1",
        "transcript": "x1",
        "language": "en",
        "engine": "whisper",
        "model": "small",
        "warnings": ["noisy"],
        "text": "Hello there",
        "segments": [
            {
                "id": "x1:caller:0",
                "transcript_id": "x1",
                "track": "caller",
                "seq": 0,
                "epoch": 1,
                "revision": 1,
                "start": 0.5,
                "end": 1.25,
                "text": "Hello there",
                "speaker": "A",
                "language": "en",
                "completed": True,
                "words": [
                    {"word": "Hello", "start": 0.5, "end": 0.8, "probability": 0.97},
                    {"word": " there", "start": 0.85, "end": 1.25, "probability": 0.5},
                ],
                "edited": False,
            }
        ],
    }


TALK = [*conversation("How are you?", "Fine."), said("And you?", 2.3, seq=2, speaker="B"), said("So.", 9, seq=3)]


def test_md_is_a_paragraph_a_turn() -> None:
    document = FORMATS["md"].render(replace(CALL, title="Budget, Q3"), TRANSCRIPT, TALK, TIMED).decode()
    assert document == (
        "# Budget, Q3\n\n> noisy\n\n`00:00:00` **A:** How are you?\n\n"
        "`00:00:01` **B:** Fine. And you?\n\n`00:00:09` **A:** So.\n"
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("*not* _bold_ `code`", r"\*not\* \_bold\_ \`code\`"),
        ("<script> [a](b) &amp; ~~x~~", r"\<script> \[a\](b) \&amp; \~\~x\~\~"),
        ("1. is no list", r"1\. is no list"),
        ("12) nor this", r"12\) nor this"),
        ("1.5 percent", "1.5 percent"),
        ("- nor this", r"\- nor this"),
        ("# no heading", r"\# no heading"),
        ("> no quote", r"\> no quote"),
    ],
)
def test_md_shows_text_and_no_markup_of_it(text: str, escaped: str) -> None:
    assert written("md", CALL, said(text, speaker=None)) == f"# Transcript\n\n{escaped}\n"


def test_a_monologue_has_paragraphs() -> None:
    heard = [said("word " * 40, i * 12.5, seq=i) for i in range(9)]
    paragraphs = written("md", CALL, *heard).split("\n\n")[1:]
    assert [len(paragraph.split()) - 1 for paragraph in paragraphs] == [160, 160, 40]


def test_docx_is_a_document_that_opens() -> None:
    call = replace(CALL, title="Budget", speakers={"A": "Ada"})
    document = docx.Document(BytesIO(FORMATS["docx"].render(call, TRANSCRIPT, TALK, TIMED)))
    assert [p.text for p in document.paragraphs] == [
        "Budget",
        "noisy",
        "00:00:00 Ada: How are you?",
        "00:00:01 B: Fine. And you?",
        "00:00:09 Ada: So.",
    ]
    assert [run.text for run in document.paragraphs[2].runs if run.bold] == ["Ada: "]
    assert document.core_properties.title == "Budget"


def test_docx_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(ExtraMissing) as missing:
        FORMATS["docx"].render(CALL, TRANSCRIPT, [])
    assert missing.value.hint == "pip install 'callreel[docx]'"
    assert missing.value.code == "extra_missing"
