"""Transcripts in OpenAI's shapes, where the engine said little, and where nobody is known."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.audio import Transcription, TranscriptionDiarized, TranscriptionVerbose

from callreel.calls.store import Call
from callreel.server.openai.answers import WARNINGS, Deltas, Speakers, answer
from callreel.server.openai.asked import TranscriptionRequest
from callreel.server.waiting import Done
from callreel.text import DecodeStats, Segment, Word
from callreel.transcripts.store import Transcript

WORDS = (Word(" good", 0.0, 0.5, 0.5), Word(" day", 0.6, 1.0, 0.0))
SEGMENTS = [
    Segment("channel-1", 0, 0.0, 1.0, "good day", WORDS),
    Segment("channel-2", 0, 1.0, 2.0, "hello", decode=DecodeStats(3, -0.25, 0.01, 1.5, 0.2)),
    Segment("channel-1", 1, 2.0, 3.0, "", ()),
    Segment("channel-1", 2, 3.0, 4.0, "yes", speaker="agent"),
]


def done(*warnings: str, segments: list[Segment] = SEGMENTS, language: str | None = "en") -> Done:
    call = Call.of_file("a.wav", 4.0, language, [("channel-1", None, 0), ("channel-2", None, 1)])
    transcript = Transcript.of_file("whisper", "tiny", language, list(warnings))
    return Done(job=None, call=call, transcript=transcript, segments=segments)  # type: ignore[arg-type]


def shaped(outcome: Done, **asked: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer(TranscriptionRequest(model="whisper-1", **asked), outcome).body)
    return body


def test_what_an_engine_does_not_say_is_worked_out() -> None:
    found = shaped(done(), response_format="verbose_json", timestamp_granularities=["segment", "word"])
    TranscriptionVerbose.model_validate(found, strict=True)
    silent, told, *_ = found["segments"]
    assert -8 < silent["avg_logprob"] < -0.5 and silent["compression_ratio"] > 0 and silent["tokens"] == []
    assert (told["avg_logprob"], told["no_speech_prob"], told["compression_ratio"]) == (-0.25, 0.01, 1.5)
    assert (told["temperature"], told["seek"]) == (0.2, 100)
    assert [word["word"] for word in found["words"]] == ["good", "day"]


def test_silence_is_an_answer_too() -> None:
    empty = done(segments=[], language=None)
    found = shaped(empty, response_format="verbose_json")
    TranscriptionVerbose.model_validate(found, strict=True)
    assert (found["text"], found["language"], found["segments"]) == ("", "", [])
    plain = shaped(empty)
    Transcription.model_validate(plain, strict=True)
    assert plain["languages"] == []
    TranscriptionDiarized.model_validate(shaped(empty, response_format="diarized_json"), strict=True)


def test_warnings_stand_in_every_format() -> None:
    outcome = done("Écrit par PocketSphinx,\r\nX: y")
    assert shaped(outcome)["warnings"] == outcome.transcript.warnings
    for name in ("text", "srt", "vtt"):
        request = TranscriptionRequest(model="whisper-1", response_format=name)  # type: ignore[arg-type]
        assert answer(request, outcome).headers[WARNINGS] == "?crit par PocketSphinx, X: y"
        assert WARNINGS not in answer(request, done()).headers


def test_who_has_no_name_is_a_letter() -> None:
    found = shaped(done(), response_format="diarized_json", channels="split")
    assert [segment["speaker"] for segment in found["segments"]] == ["A", "B", "A", "agent"]
    names = Speakers()
    assert [names.of(f"channel-{n}") for n in range(28)][-3:] == ["Z", "AA", "BB"]


def test_deltas_put_together_are_the_text() -> None:
    deltas = Deltas(TranscriptionRequest(model="whisper-1", include=["logprobs"]))
    frames = [*deltas.of(tuple(SEGMENTS[:2])), *deltas.of(tuple(SEGMENTS[2:])), *deltas.end(done("weak"))]
    assert frames.pop() == "data: [DONE]\n\n"
    *said, last = (json.loads(frame.removeprefix("data: ")) for frame in frames)
    assert "".join(one["delta"] for one in said) == last["text"] == "good day hello yes"
    assert [one["token"] for one in last["logprobs"]] == [" good", " day"] and last["warnings"] == ["weak"]


@pytest.mark.parametrize(("asked", "words"), [({}, False), ({"store": True}, True), ({"include": ["logprobs"]}, True)])
def test_times_of_words_are_looked_for_only_if_somebody_wants_them(asked: dict[str, Any], words: bool) -> None:
    assert TranscriptionRequest(model="whisper-1", **asked).needs_words is words
