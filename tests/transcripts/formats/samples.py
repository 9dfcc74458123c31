"""A call, a transcript and segments for the tests of the formats."""

from __future__ import annotations

from collections.abc import Sequence

from callreel.calls.store import Call, Track
from callreel.text import Segment, Word, join_words
from callreel.transcripts.store import Transcript

AT = "2026-01-01T00:00:00.000Z"
CALL = Call("c1", "owner", None, "", "done", "file", AT, AT, 9.0, "en", {}, {}, AT, (Track("t1", "c1", "caller"),))
TRANSCRIPT = Transcript("x1", "c1", "final", "en", "whisper", "small", "done", None, True, ["noisy"], AT)


def said(
    text: str, start: float = 0.0, *, seq: int = 0, word_s: float = 0.3, timed: bool = True, speaker: str | None = "A"
) -> Segment:
    """A segment that says `text`, each word `word_s` long, with the times of its words or without."""
    parts = text.split()
    words = tuple(
        Word(f" {part}" if i else part, start + i * word_s, start + (i + 1) * word_s) for i, part in enumerate(parts)
    )
    end = start + len(parts) * word_s
    return Segment("caller", seq, start, end, join_words(words), words if timed else (), speaker=speaker)


def conversation(*texts: str, pause_s: float = 0.5, word_s: float = 0.3) -> list[Segment]:
    """Speakers A and B say `texts` in turn."""
    segments: list[Segment] = []
    at = 0.0
    for i, text in enumerate(texts):
        segments.append(said(text, at, seq=i, word_s=word_s, speaker="AB"[i % 2]))
        at = segments[-1].end + pause_s
    return segments


def text_of(segments: Sequence[Segment]) -> list[str]:
    return " ".join(segment.text for segment in segments).split()
