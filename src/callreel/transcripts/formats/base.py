"""What a format is, what may be asked of one, and the text and times that formats share."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from callreel.calls.store import Call
from callreel.errors import InvalidInput
from callreel.text import Segment
from callreel.transcripts.store import Transcript


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """How a transcript is written down; a format ignores what it has no use for.

    The first four are for subtitles: columns a line (a wide East Asian character takes two), lines a cue, and the
    seconds for which a cue is shown. `speakers` names who speaks, where that is known; `timestamps` puts the time
    before each line or paragraph of txt, md and docx. Raises InvalidInput for what no cue could satisfy.
    """

    max_line_chars: int = 42
    max_lines: int = 2
    min_cue_s: float = 1.0
    max_cue_s: float = 7.0
    speakers: bool = True
    timestamps: bool = False

    def __post_init__(self) -> None:
        for field in ("max_line_chars", "max_lines"):
            if getattr(self, field) < 1:
                raise InvalidInput(f"{field} must be at least 1.", field=field)
        if not 0 <= self.min_cue_s <= self.max_cue_s or self.max_cue_s <= 0:
            raise InvalidInput(
                "min_cue_s and max_cue_s are seconds: 0 <= min_cue_s <= max_cue_s, and max_cue_s above 0.",
                field="max_cue_s",
            )


Writer = Callable[[Call, Transcript, Sequence[Segment], FormatOptions], bytes]
DEFAULTS = FormatOptions()


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a transcript down; `extension` is that of its files, without a dot."""

    name: str
    extension: str
    media_type: str
    write: Writer

    def render(
        self, call: Call, transcript: Transcript, segments: Sequence[Segment], options: FormatOptions = DEFAULTS
    ) -> bytes:
        """The whole file, of segments in any order. Text is UTF-8; a transcript without segments is a valid file too.

        Raises ExtraMissing where the format needs a package that is not installed.
        """
        return self.write(call, transcript, in_order(segments), options)


def in_order(segments: Sequence[Segment]) -> list[Segment]:
    """Segments by the time they start, those without text left out."""
    return sorted((s for s in segments if plain(s.text)), key=lambda s: (s.start, s.track, s.seq))


def plain(text: str) -> str:
    """`text` in one line: runs of white space are one space, and no control character is left in it."""
    if text.isprintable():  # nearly always, and thirty times as fast
        return " ".join(text.split())
    kept = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join(kept.split())


def milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def stamp(ms: int, decimal: str) -> str:
    """hh:mm:ss and milliseconds behind the mark `decimal`; hours take more than two digits from 100 on."""
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{decimal}{ms:03}"


def clock_time(seconds: float) -> str:
    """hh:mm:ss, the second that a reader would wind to."""
    return stamp(milliseconds(seconds), ".")[:-4]
