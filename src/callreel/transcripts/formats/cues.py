"""Cues: what is shown at once as a subtitle, cut and timed the way subtitlers do it.

What holds of the cues of any transcript, whatever its words and times:

- Each word is in one cue, and the words of a voice (a speaker on a track) are in the order of its segments.
- A cue has at most `max_lines` lines, and a line at most `max_line_chars` columns, but for a line of a single word.
- A cue is shown for `max_cue_s` at most, and for `min_cue_s` at least unless another cue starts before that.
- Cues stand in the order of their starts; two of one voice never overlap, and one is never stretched, for the sake of
  its reader, into another voice's.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, pairwise

from callreel.calls.store import Call
from callreel.text import Segment, Word
from callreel.transcripts.formats.base import FormatOptions, milliseconds, plain
from callreel.transcripts.formats.words import may_break, timed_words, width
from callreel.transcripts.nouns import speaker_name

READING_CPS = 20  # columns that a reader takes in a second
HOLD_S = 2.0  # a longer silence always ends a cue
PAUSE_S = 0.3  # a silence that is heard as one

# What a choice costs; the cues of a run are those that cost least in all.
A_CUE = 2.0
MID_CLAUSE, AT_CLAUSE, AT_PAUSE, AT_SEGMENT, AT_SENTENCE = 10.0, 3.0, 2.0, 1.0, 0.0  # where a cue ends
NO_TIME = 10.0  # a second that a cue lacks to be shown for min_cue_s
TOO_FAST = 4.0  # a second that a reader lacks
BRIEF = 3.0  # a second that its words lack of min_cue_s
RAGGED = 250.0  # a line that ends inside a clause, against squares of columns

SENTENCE_ENDS, CLAUSE_ENDS, CLOSING = ".?!…。？！؟।", ",;:–—、，；：،", "\"'”’»)]）」』"


@dataclass(frozen=True, slots=True)
class Atom:
    """Words that no line may come between, usually one; `space` is whether one is written before it."""

    text: str
    space: bool
    start: float
    end: float
    ends_segment: bool = False


@dataclass(frozen=True, slots=True)
class Cue:
    """What one voice says at once; `speaker` is the name to show, times are milliseconds from the call's start."""

    start_ms: int
    end_ms: int
    atoms: tuple[Atom, ...]
    track: str
    speaker: str | None
    voice: tuple[str, str | None]

    @property
    def text(self) -> str:
        return _joined(self.atoms)

    def lines(self, options: FormatOptions, indent: int = 0) -> list[str]:
        """The text in as few lines as hold it, of lengths as equal as may be; the first leaves `indent` columns."""
        return [_joined(self.atoms[a:b]) for a, b in _balanced(self.atoms, options.max_line_chars, indent)]


def cues_of(call: Call, segments: Sequence[Segment], options: FormatOptions, *, labels: bool = False) -> list[Cue]:
    """The cues of segments that are in order of time.

    With `labels`, room is left for `label(speaker)` in front of each cue that follows another speaker's.
    """
    # A run is what one voice says before another begins.
    runs = [list(run) for _, run in groupby(segments, key=lambda s: (s.track, s.speaker))]
    found: list[Cue] = []
    said_until = 0.0
    for i, run in enumerate(runs):
        voice = (run[0].track, run[0].speaker)
        speaker = plain(speaker_name(call, run[0]) or "") or None if options.speakers else None
        atoms = _atoms(run)
        until = runs[i + 1][0].start if i + 1 < len(runs) else math.inf
        indent = width(label(speaker)) if labels else 0
        run_end = max(segment.end for segment in run)
        talked_over = run[0].start < said_until or until < run_end  # then any of its cues may follow another speaker's
        said_until = max(said_until, run_end)
        for a, b in _split(atoms, options, (indent, indent if talked_over else 0), until):
            times = milliseconds(atoms[a].start), milliseconds(atoms[b - 1].end)
            found.append(Cue(*times, tuple(atoms[a:b]), run[0].track, speaker, voice))
    return _timed(found, options)


def label(speaker: str | None) -> str:
    """What names a speaker in front of the text."""
    return "" if speaker is None else f"{speaker}: "


def _atoms(run: Sequence[Segment]) -> list[Atom]:
    atoms: list[Atom] = []
    for segment in run:
        pending: list[Word] = []
        words = timed_words(segment)
        for word, after in zip(words, [*words[1:], None], strict=True):
            pending.append(word)
            if after is None or may_break(word.word, after.word):
                text = "".join(w.word for w in pending)
                space = text.startswith(" ") or (
                    pending[0] is words[0] and bool(atoms) and _spaced(atoms[-1].text, text)
                )
                atoms.append(Atom(text.strip(), space, pending[0].start, word.end, after is None))
                pending = []
    return atoms


def _spaced(before: str, text: str) -> bool:
    """Is a space written between the ends of two segments? Not before Chinese or Japanese."""
    return not (may_break(before, text) and width(text[:1]) == 2)


def _split(
    atoms: Sequence[Atom], options: FormatOptions, indents: tuple[int, int], until: float
) -> list[tuple[int, int]]:
    """Where to cut a run, which nobody interrupts before `until`, into cues: the ways are weighed against each other.

    `indents` are columns left free in the first cue and in each other one. Every way is looked at, from the end:
    best[i] is what atoms[i:] cost at least, cut[i] where their first cue ends.
    """
    n = len(atoms)
    columns = _columns(atoms)
    starts = [atom.start for atom in atoms] + [until]
    costs = [_end_cost(atoms, k) for k in range(n - 1)] + [AT_SENTENCE]
    best, cut = [0.0] * (n + 1), [n] * n
    for i in range(n - 1, -1, -1):
        cheapest = math.inf
        start = starts[i]
        for j in range(i, _reach(atoms, columns, i, options, indents[i > 0])):
            end = atoms[j].end
            if j > i and (end - start > options.max_cue_s or starts[j] - atoms[j - 1].end > HOLD_S):
                break
            shown = min(max(starts[j + 1], end) - start, options.max_cue_s)
            cost = A_CUE + costs[j] + best[j + 1]
            cost += NO_TIME * max(0.0, options.min_cue_s - shown) + BRIEF * max(0.0, options.min_cue_s - (end - start))
            cost += TOO_FAST * max(0.0, (columns[j + 1] - columns[i]) / READING_CPS - shown)
            if cost < cheapest:
                cheapest, cut[i] = cost, j + 1
        best[i] = cheapest
    found, at = [], 0
    while at < n:
        found.append((at, cut[at]))
        at = cut[at]
    return found


def _end_cost(atoms: Sequence[Atom], k: int) -> float:
    """What it costs to end a cue after atom `k`, which is not the last."""
    atom = atoms[k]
    text = atom.text.rstrip(CLOSING)
    if text.endswith(tuple(SENTENCE_ENDS)):
        return AT_SENTENCE
    if atom.ends_segment:
        return AT_SEGMENT
    if atoms[k + 1].start - atom.end >= PAUSE_S:
        return AT_PAUSE
    return AT_CLAUSE if text.endswith(tuple(CLAUSE_ENDS)) else MID_CLAUSE


def _columns(atoms: Sequence[Atom]) -> list[int]:
    """Columns that atoms[:i] take in one line, for each i; a space counts to the atom that it stands before."""
    columns = [0]
    for atom in atoms:
        columns.append(columns[-1] + atom.space + width(atom.text))
    return columns


def _line_end(atoms: Sequence[Atom], columns: Sequence[int], i: int, room: int) -> int:
    """Where a line that begins with atom `i` ends at the latest; one atom is always in it."""
    return max(i + 1, bisect_right(columns, columns[i] + atoms[i].space + room) - 1)


def _reach(atoms: Sequence[Atom], columns: Sequence[int], i: int, options: FormatOptions, indent: int) -> int:
    """Where a cue that begins with atom `i` ends at the latest, for the room there is."""
    at = _line_end(atoms, columns, i, options.max_line_chars - indent)
    for _ in range(options.max_lines - 1):
        if at >= len(atoms):
            break
        at = _line_end(atoms, columns, at, options.max_line_chars)
    return at


def _balanced(atoms: Sequence[Atom], room: int, indent: int) -> list[tuple[int, int]]:
    """The lines of a cue, as few as hold it; among these the ones most alike, ending where clauses do."""
    n = len(atoms)
    columns = _columns(atoms)
    needed, at = 0, 0
    while at < n:
        at = _line_end(atoms, columns, at, room - (0 if needed else indent))
        needed += 1
    ideal = (columns[n] - atoms[0].space + indent) / needed

    @cache
    def best(i: int, lines: int) -> tuple[float, tuple[int, ...]]:
        """What atoms[i:] in `lines` lines cost, and where each of these ends."""
        taken = indent if lines == needed else 0
        furthest = _line_end(atoms, columns, i, room - taken)
        ways: list[tuple[float, tuple[int, ...]]] = []
        for j in range(i + 1, min(furthest, n) + 1):
            if (lines == 1) != (j == n):
                continue
            cost = (columns[j] - columns[i] - atoms[i].space + taken - ideal) ** 2
            if j == n:
                ways.append((cost, (j,)))
            else:
                rest, ends = best(j, lines - 1)
                ragged = RAGGED if _end_cost(atoms, j - 1) == MID_CLAUSE else 0.0
                ways.append((cost + ragged + rest, (j, *ends)))
        return min(ways, default=(math.inf, ()))

    ends = best(0, needed)[1]
    return list(pairwise((0, *ends)))


def _timed(cues: Sequence[Cue], options: FormatOptions) -> list[Cue]:
    """Cues with the times for which they are shown, in order of these; see the head of this file for what holds."""
    shortest, longest = milliseconds(options.min_cue_s), max(1, milliseconds(options.max_cue_s))
    started: list[Cue] = []
    last: dict[tuple[str, str | None], int] = {}  # of each voice, its last cue's place in `started`
    for cue in cues:
        before = last.get(cue.voice)
        start = cue.start_ms if before is None else max(cue.start_ms, started[before].start_ms + 1)
        end = max(start + 1, cue.end_ms)
        if before is not None:
            earlier = started[before]
            started[before] = replace(earlier, end_ms=min(earlier.end_ms, start))
        last[cue.voice] = len(started)
        started.append(replace(cue, start_ms=start, end_ms=end))
    started.sort(key=lambda cue: cue.start_ms)
    starts = [cue.start_ms for cue in started]
    found = []
    for cue in started:
        following = bisect_right(starts, cue.start_ms)
        room = starts[following] if following < len(starts) else cue.start_ms + longest
        reading = math.ceil(width(cue.text) / READING_CPS * 1000)
        wanted = min(room, cue.start_ms + max(shortest, reading))
        found.append(replace(cue, end_ms=min(cue.start_ms + longest, max(cue.end_ms, wanted))))
    return found


def _joined(atoms: Sequence[Atom]) -> str:
    return "".join(f" {atom.text}" if atom.space and i else atom.text for i, atom in enumerate(atoms))
