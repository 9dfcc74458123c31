"""What a format is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from callreel.calls.store import Call
from callreel.text import Segment
from callreel.transcripts.store import Transcript


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a transcript down; `render` takes the segments in order and returns the whole file."""

    name: str
    media_type: str
    render: Callable[[Call, Transcript, Sequence[Segment]], str]
