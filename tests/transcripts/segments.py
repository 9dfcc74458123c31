"""Segments for tests, with everything in them that is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from callreel.text import DecodeStats, Segment, Word

SPOKEN = Segment(
    track="caller",
    seq=0,
    start=0.5,
    end=1.25,
    text="Hello there",
    words=(Word("Hello", 0.5, 0.8, 0.97), Word(" there", 0.85, 1.25, 0.5)),
    speaker="A",
    language="en",
    decode=DecodeStats(tokens=4, avg_logprob=-0.25, compression_ratio=1.1),
)


def spoken(**changes: Any) -> Segment:
    return replace(SPOKEN, **changes)
