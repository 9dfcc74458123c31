from __future__ import annotations

import json
from dataclasses import replace

import pytest

from callreel.calls.store import Call, Track
from callreel.transcripts.formats import FORMATS
from callreel.transcripts.store import Transcript
from tests.transcripts.segments import spoken

AT = "2026-01-01T00:00:00.000Z"
CALL = Call("c1", "owner", None, "", "done", "file", AT, AT, 9.0, "en", {}, {}, AT, (Track("t1", "c1", "caller"),))
TRANSCRIPT = Transcript("x1", "c1", "final", "en", "whisper", "small", "done", None, True, ["noisy"], AT)
CALLER, AGENT = Track("t1", "c1", "caller", "A", 0), Track("t2", "c1", "agent", None, 1)


def txt(call: Call, *segments: object) -> str:
    return FORMATS["txt"].render(call, TRANSCRIPT, segments)  # type: ignore[arg-type]


def test_every_format_is_registered_under_its_name() -> None:
    assert {name: format.name for name, format in FORMATS.items()} == {"txt": "txt", "json": "json"}
    assert FORMATS["txt"].media_type == "text/plain; charset=utf-8"
    assert FORMATS["json"].media_type == "application/json"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_an_empty_transcript(name: str) -> None:
    assert isinstance(FORMATS[name].render(CALL, TRANSCRIPT, []), str)


def test_txt_is_a_line_a_segment() -> None:
    heard = [
        spoken(speaker=None),
        spoken(speaker=None, seq=1, text=""),
        spoken(speaker=None, seq=2, text="Héllo again"),
    ]
    assert txt(CALL, *heard) == "Hello there\nHéllo again\n"


def test_txt_names_speakers_as_the_call_does() -> None:
    named = replace(CALL, speakers={"A": "Ada"})
    assert txt(named, spoken(), spoken(seq=1, speaker="B")) == "Ada: Hello there\nB: Hello there\n"


def test_txt_names_tracks_where_there_are_several() -> None:
    call = replace(CALL, tracks=(CALLER, AGENT), speakers={"A": "Ada"})
    heard = [spoken(speaker=None), spoken(speaker=None, track="agent")]
    assert txt(call, *heard) == "Ada: Hello there\nagent: Hello there\n"


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
            }
        ],
    }
