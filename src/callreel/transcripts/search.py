"""Full-text search over what was said: it answers moments, not documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from msgspec import Meta
from sqlalchemy import Connection, RowMapping, and_, literal, or_, select, tuple_

from callreel.calls import store as calls
from callreel.errors import InvalidInput
from callreel.storage import fulltext
from callreel.storage.pages import DEFAULT_LIMIT, Page, cursor_at, place_of, require_limit
from callreel.storage.tables import call, segment, transcript, transcript_line
from callreel.text import Segment
from callreel.transcripts import store
from callreel.transcripts.nouns import segment_id, speaker_name

MOST_QUERY = 500  # characters
BEFORE, SNIPPET = 60, 200  # characters of a snippet before its first match, and in all
CUT = "…"


class _Place(NamedTuple):
    """What moments are ordered by."""

    created_at: str  # of the call
    call_id: str
    start: float
    track: str
    seq: Annotated[int, Meta(ge=0, lt=1 << 31)]


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in a call where something was said. `matches` are (begin, end) in characters of `snippet`.

    `start` is that of the first word that matched, of the segment where words have no times; `end` is the segment's.
    Both are seconds on the call's clock.
    """

    call_id: str
    call_title: str
    call_started_at: str | None
    transcript_id: str
    segment_id: str
    track: str
    speaker: str | None
    start: float
    end: float
    snippet: str
    matches: tuple[tuple[int, int], ...]


def search(
    conn: Connection,
    client_id: str,
    query: str,
    *,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    call_id: str | None = None,
) -> Page[Moment]:
    """Segments that hold every word and "phrase" of the query, in the current transcripts of a client's calls, edits
    included: newest calls first, each call in order of time. `word*` stands for all words that begin so.

    Any text is a query, none is an error of syntax. Raises InvalidInput for one without a letter or digit or with too
    many characters, and as `pages.newest_first` does.
    """
    require_limit(limit)
    if len(query) > MOST_QUERY:
        raise InvalidInput(f"A query may have {MOST_QUERY} characters, not {len(query)}.", field="q")
    wanted = fulltext.terms(query)
    if not wanted:
        raise InvalidInput("There is no word in this query to look for.", field="q")
    found = fulltext.matches(conn, wanted).subquery("found")
    in_order = (call.c.created_at.desc(), call.c.id.desc(), *store.IN_TIME)
    of_line = and_(*(transcript_line.c[key.name] == key for key in segment.primary_key.columns))
    # The page is found first, by what it is ordered by, and only then is its text read and marked.
    first = (
        select(found.c.id)
        .join(transcript_line, found.c.id == transcript_line.c.id)
        .join(transcript, transcript.c.id == transcript_line.c.transcript_id)
        .join(call, call.c.id == transcript.c.call_id)
        .join(segment, of_line)
        .where(transcript.c.current, call.c.client_id == client_id)
        .order_by(*in_order)
        .limit(limit + 1)
    )
    if call_id is not None:
        first = first.where(call.c.id == call_id)
    if cursor is not None:
        last = place_of(cursor, _Place)
        older = tuple_(call.c.created_at, call.c.id) < tuple_(literal(last.created_at), literal(last.call_id))
        later = tuple_(*store.IN_TIME) > tuple_(literal(last.start), literal(last.track), literal(last.seq))
        first = first.where(or_(older, and_(call.c.id == last.call_id, later)))
    ids = conn.execute(first).scalars().all()
    if not ids:
        return Page([], None)
    marked = {row.id: row.marked for row in conn.execute(fulltext.matches(conn, wanted, ids))}
    rows = (
        store.select_segments()
        .join(transcript_line, of_line)
        .join(transcript, transcript.c.id == segment.c.transcript_id)
        .join(call, call.c.id == transcript.c.call_id)
        .add_columns(call.c.id.label("call_id"), call.c.created_at, transcript_line.c.id.label("line_id"))
        .where(transcript_line.c.id.in_(ids))
        .order_by(*in_order)
    )
    hits = conn.execute(rows).mappings().all()
    page = hits[:limit]
    of_id = {c.id: c for c in calls.get_calls(conn, {hit["call_id"] for hit in page})}
    moments = [_moment(of_id[hit["call_id"]], hit, marked[hit["line_id"]]) for hit in page]
    return Page(moments, cursor_at(_place(page[-1])) if len(hits) > limit else None)


def _place(hit: RowMapping) -> _Place:
    return _Place(hit["created_at"], hit["call_id"], hit["start"], hit["track"], hit["seq"])


def _moment(of: calls.Call, hit: RowMapping, marked: str) -> Moment:
    said = store.segment_of(hit)
    matches = list(fulltext.marks(said.text, marked))
    snippet, shown = _snippet(said.text, matches)
    return Moment(
        call_id=of.id,
        call_title=of.title,
        call_started_at=of.started_at,
        transcript_id=hit["transcript_id"],
        segment_id=segment_id(hit["transcript_id"], said.track, said.seq),
        track=said.track,
        speaker=speaker_name(of, said),
        start=_start(said, matches[0][0] if matches else 0),
        end=said.end,
        snippet=snippet,
        matches=shown,
    )


def _start(said: Segment, at: int) -> float:
    """When the word of character `at` begins."""
    end = 0
    for word in said.words:
        text = word.word.strip()
        begin = said.text.find(text, end)
        if begin >= 0:
            end = begin + len(text)
            if end > at:
                return word.start
    return said.start


def _snippet(text: str, matches: Sequence[tuple[int, int]]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text around the first match, cut at words where they have spaces, and where in it the matches lie."""
    first, first_end = matches[0] if matches else (0, 0)
    begin, end = max(0, first - BEFORE), len(text)
    if begin > 0:
        begin = text.find(" ", begin - 1, first) + 1 or begin
    if end - begin > SNIPPET:
        end = max(begin + SNIPPET, first_end)
        if text[end : end + 1] not in ("", " "):
            end = max(text.rfind(" ", first_end, end), 0) or end
    head = CUT if begin > 0 else ""
    shift = len(head) - begin
    shown = tuple((b + shift, e + shift) for b, e in matches if begin <= b and e <= end)
    return head + text[begin:end] + (CUT if end < len(text) else ""), shown
