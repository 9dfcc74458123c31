"""Transcripts in the shapes that OpenAI's clients check."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from fastapi.responses import JSONResponse, Response

from callreel.engines.languages import NAMES
from callreel.server import sse
from callreel.server.openai.asked import AudioRequest, TranscriptionRequest
from callreel.server.waiting import Done
from callreel.text import Segment, Word, text_of
from callreel.transcripts.formats import format_named
from callreel.transcripts.nouns import speaker_name

WARNINGS = "X-Callreel-Warnings"  # where the body is no JSON object
LEAST_PROBABILITY = 1e-6  # a logarithm must be finite


def answer(asked: AudioRequest, done: Done) -> Response:
    """The whole answer, in the format that was asked for."""
    warnings = [*done.transcript.warnings, *asked.warnings()]
    if asked.format in ("srt", "vtt"):
        body = format_named(asked.format).render(done.call, done.transcript, done.segments)
        return Response(body, media_type="text/plain; charset=utf-8", headers=_header(warnings))
    if asked.format == "text":
        return Response(
            f"{text_of(done.segments)}\n", media_type="text/plain; charset=utf-8", headers=_header(warnings)
        )
    if asked.format == "verbose_json":
        shaped = _verbose(asked, done)
    elif asked.format == "diarized_json":
        shaped = _diarized(done)
    else:
        shaped = _plain(asked, done)
    if warnings:
        shaped["warnings"] = warnings
    return JSONResponse(shaped)


def _plain(asked: AudioRequest, done: Done) -> dict[str, Any]:
    shaped: dict[str, Any] = {"text": text_of(done.segments)}
    if isinstance(asked, TranscriptionRequest):
        shaped["languages"] = _languages(done)
        if asked.include:
            shaped["logprobs"] = [_logprob(word) for segment in done.segments for word in segment.words]
        shaped["usage"] = _usage(done)
    return shaped


def _verbose(asked: AudioRequest, done: Done) -> dict[str, Any]:
    granularities = asked.granularities if isinstance(asked, TranscriptionRequest) else ("segment",)
    translated = not isinstance(asked, TranscriptionRequest)
    code = "en" if translated else done.transcript.language or ""
    shaped: dict[str, Any] = {
        "task": "translate" if translated else "transcribe",
        "language": NAMES.get(code, code),
        "duration": _duration_s(done),
        "text": text_of(done.segments),
        "usage": _usage(done),
    }
    if "segment" in granularities:
        shaped["segments"] = [_segment(i, segment) for i, segment in enumerate(done.segments)]
    if "word" in granularities:
        words = [word for segment in done.segments for word in segment.words]
        shaped["words"] = [{"word": w.word.strip(), "start": w.start, "end": w.end} for w in words]
    return shaped


def _segment(i: int, segment: Segment) -> dict[str, Any]:
    """What an engine does not say is worked out from its text and words; the ids of its tokens are not kept."""
    stats, raw = segment.decode, segment.text.encode()
    sure = [math.log(max(LEAST_PROBABILITY, word.probability)) for word in segment.words]
    avg_logprob = sum(sure) / len(sure) if sure else 0.0
    ratio = len(raw) / len(zlib.compress(raw)) if raw else 0.0
    return {
        "id": i,
        "seek": round(segment.start * 100),  # mel frames, 10 ms each
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": stats.temperature,
        "avg_logprob": round(avg_logprob if stats.avg_logprob is None else stats.avg_logprob, 4),
        "compression_ratio": round(ratio if stats.compression_ratio is None else stats.compression_ratio, 4),
        "no_speech_prob": round(stats.no_speech_prob or 0.0, 4),
    }


def _diarized(done: Done) -> dict[str, Any]:
    names = Speakers()
    return {
        "task": "transcribe",
        "duration": _duration_s(done),
        "text": text_of(done.segments),
        "segments": [
            {"type": "transcript.text.segment", **_spoken(i, segment, names.of(speaker_name(done.call, segment)))}
            for i, segment in enumerate(done.segments)
        ],
        "usage": _usage(done),
    }


class Speakers:
    """Who has no name of their own is A, B, ... in the order in which they speak."""

    def __init__(self) -> None:
        self._letters: dict[str | None, str] = {}

    def of(self, name: str | None) -> str:
        """`name` as it is, unless it is none, or only the name of a channel."""
        if name is not None and not name.startswith("channel-"):
            return name
        if name not in self._letters:
            n = len(self._letters)
            self._letters[name] = ascii_uppercase[n % 26] * (1 + n // 26)
        return self._letters[name]


class Deltas:
    """Events of a stream; the deltas put together are the text of its end."""

    def __init__(self, asked: TranscriptionRequest) -> None:
        self._asked = asked
        self._speakers = Speakers()
        self._n = 0

    def of(self, segments: tuple[Segment, ...]) -> Iterator[str]:
        diarized = self._asked.format == "diarized_json"
        for segment in segments:
            if not segment.text:
                continue
            space = " " if self._n else ""
            delta: dict[str, Any] = {"type": "transcript.text.delta", "delta": f"{space}{segment.text}"}
            if self._asked.include:
                delta["logprobs"] = [_logprob(word) for word in segment.words]
            if diarized:
                speaker = segment.speaker or (segment.track if self._asked.channels == "split" else None)
                spoken = _spoken(self._n, segment, self._speakers.of(speaker))
                delta["segment_id"] = spoken["id"]
                yield sse.data_only({"type": "transcript.text.segment", **spoken})
            yield sse.data_only(delta)
            self._n += 1

    def end(self, done: Done) -> Iterator[str]:
        """OpenAI's type of the last event knows tokens as usage and no seconds, so the seconds stand beside it."""
        last = {
            "type": "transcript.text.done",
            "text": text_of(done.segments),
            "languages": _languages(done),
            "duration": _duration_s(done),
        }
        if self._asked.include:
            last["logprobs"] = [_logprob(word) for segment in done.segments for word in segment.words]
        if warnings := [*done.transcript.warnings, *self._asked.warnings()]:
            last["warnings"] = warnings
        yield sse.data_only(last)
        yield sse.DONE


def _spoken(i: int, segment: Segment, speaker: str) -> dict[str, Any]:
    return {"id": f"seg_{i}", "start": segment.start, "end": segment.end, "text": segment.text, "speaker": speaker}


def _logprob(word: Word) -> dict[str, Any]:
    """Of a word: the probabilities of its tokens are not kept."""
    return {
        "token": word.word,
        "bytes": list(word.word.encode()),
        "logprob": round(math.log(max(LEAST_PROBABILITY, word.probability)), 4),
    }


def _languages(done: Done) -> list[dict[str, str]]:
    return [{"code": done.transcript.language}] if done.transcript.language else []


def _usage(done: Done) -> dict[str, Any]:
    return {"type": "duration", "seconds": _duration_s(done)}


def _duration_s(done: Done) -> float:
    return done.call.duration_s or 0.0


def _header(warnings: list[str]) -> dict[str, str]:
    said = " | ".join(" ".join(warning.split()) for warning in warnings)
    return {WARNINGS: said.encode("ascii", "replace").decode()} if said else {}
