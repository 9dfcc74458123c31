"""Transcripts and segments, in SQL. Every function is one step inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, exists, literal, select, tuple_, update
from sqlalchemy import insert as insert_into

from callreel import clock
from callreel.errors import Conflict, NotFound
from callreel.storage.inserts import insert
from callreel.storage.tables import edit, segment, transcript
from callreel.text import DecodeStats, Segment, Word
from callreel.transcripts import lines

Pass = Literal["live", "final"]
State = Literal["running", "done", "failed"]
IN_TIME = (segment.c.start, segment.c.track, segment.c.seq)  # the order that segments are read in


@dataclass(frozen=True, slots=True)
class Transcript:
    """One run over a call, live or final; `current` is the one a reader of the call wants."""

    id: str
    call_id: str
    pass_: Pass
    language: str | None
    engine: str
    model: str
    state: State
    job_id: str | None
    current: bool
    warnings: list[str]
    created_at: str

    @classmethod
    def of_file(cls, engine: str, model: str, language: str | None, warnings: list[str]) -> Transcript:
        """A finished transcript that stands in no database: of a file transcribed on the command line."""
        return cls(
            id=clock.new_id(),
            call_id="",
            pass_="final",
            language=language,
            engine=engine,
            model=model,
            state="done",
            job_id=None,
            current=True,
            warnings=warnings,
            created_at=clock.now(),
        )


def create_transcript(
    conn: Connection,
    *,
    call_id: str,
    pass_: Pass,
    engine: str,
    model: str,
    language: str | None = None,
    job_id: str | None = None,
) -> Transcript:
    """A running transcript. A live one is current from the start, unless the call has a finished final one."""
    row = {
        "call_id": call_id,
        "pass_": pass_,
        "engine": engine,
        "model": model,
        "language": language,
        "job_id": job_id,
    }
    transcript_id = conn.execute(insert_into(transcript).values(row).returning(transcript.c.id)).scalar_one()
    finished_final = exists().where(
        transcript.c.call_id == call_id, transcript.c.pass_ == "final", transcript.c.state == "done"
    )
    if pass_ == "live" and not conn.execute(select(finished_final)).scalar_one():
        _make_current(conn, call_id, transcript_id)
    return _get(conn, transcript_id)


def finish_transcript(
    conn: Connection, transcript_id: str, *, state: State, language: str | None, warnings: Sequence[str]
) -> Transcript:
    """End a transcript. Raises NotFound.

    A final one that is done becomes the current one, unless that one was edited: then it waits for `accept`.
    """
    values = {"state": state, "language": language, "warnings": list(warnings)}
    conn.execute(update(transcript).where(transcript.c.id == transcript_id).values(values))
    finished = _get(conn, transcript_id)
    if finished.pass_ == "final" and state == "done" and not _current_is_edited(conn, finished.call_id):
        _make_current(conn, finished.call_id, transcript_id)
    return _get(conn, transcript_id)


def accept(conn: Connection, transcript_id: str, call_id: str) -> Transcript:
    """Make a finished transcript of the call the current one, edits or not. Raises NotFound, Conflict."""
    wanted = _newest(conn, transcript.c.id == transcript_id, transcript.c.call_id == call_id)
    if wanted is None:
        raise NotFound(transcript_id=transcript_id)
    if wanted.state != "done":
        raise Conflict("Only a finished transcript can be accepted.", transcript_id=transcript_id, state=wanted.state)
    _make_current(conn, call_id, transcript_id)
    return _get(conn, transcript_id)


def copy_transcript(conn: Connection, transcript_id: str, *, call_id: str, job_id: str | None) -> Transcript:
    """The engine's text of a finished transcript, without anybody's edits, as a transcript of another call.

    For a result that is known already: the same audio, the same options. Raises NotFound.
    """
    known = _get(conn, transcript_id)
    copy = create_transcript(
        conn, call_id=call_id, pass_=known.pass_, engine=known.engine, model=known.model, job_id=job_id
    )
    others = [column for column in segment.c if column.name != "transcript_id"]
    rows = select(literal(copy.id), *others).where(segment.c.transcript_id == transcript_id)
    conn.execute(insert_into(segment).from_select(["transcript_id", *(column.name for column in others)], rows))
    keys = select(segment.c.track, segment.c.seq).where(segment.c.transcript_id == copy.id)
    lines.keep(conn, copy.id, [(row.track, row.seq) for row in conn.execute(keys)])
    return finish_transcript(conn, copy.id, state=known.state, language=known.language, warnings=known.warnings)


def current_transcript(conn: Connection, call_id: str) -> Transcript | None:
    """The transcript a reader of the call wants; None while there is neither a live nor a finished final one."""
    return _newest(conn, transcript.c.call_id == call_id, transcript.c.current)


def live_transcript(conn: Connection, call_id: str) -> Transcript | None:
    """The newest live transcript of the call, current or not."""
    return _newest(conn, transcript.c.call_id == call_id, transcript.c.pass_ == "live")


def of_call(conn: Connection, call_id: str) -> list[Transcript]:
    """All transcripts of a call, newest first."""
    return [Transcript(**row) for row in conn.execute(_select(transcript.c.call_id == call_id)).mappings()]


def put_segments(conn: Connection, transcript_id: str, segments: Sequence[Segment]) -> int:
    """Store `segments` and return how many changed the transcript.

    Of two with one (track, seq) the higher (epoch, revision) stays, in whatever order they come. Raises ValueError for
    a partial: what may still change is published, never stored.
    """
    require_completed(segments)
    if not segments:
        return 0
    put = insert(conn, segment)
    newer = tuple_(put.excluded.epoch, put.excluded.revision) > tuple_(segment.c.epoch, segment.c.revision)
    key = segment.primary_key.columns
    put = put.on_conflict_do_update(
        index_elements=list(key),
        set_={column.name: put.excluded[column.name] for column in segment.c if column.name not in key},
        where=newer,
    )
    changed = conn.execute(put, [_row(transcript_id, s) for s in segments]).rowcount
    if changed:
        lines.keep(conn, transcript_id, [(s.track, s.seq) for s in segments])
    return changed


def require_completed(segments: Iterable[Segment]) -> None:
    """Raise ValueError if any of `segments` is a partial."""
    for s in segments:
        if not s.completed:
            raise ValueError(f"segment {s.seq} of track {s.track!r} is a partial; only completed ones are stored")


def segments(conn: Connection, transcript_id: str, *, edited: bool = True) -> list[Segment]:
    """All segments of a transcript, in order of start, track, seq; without edits, what the engine wrote, if not
    `edited`."""
    ordered = _segments(segment.c.transcript_id == transcript_id, edited=edited)
    return [segment_of(row) for row in conn.execute(ordered.order_by(*IN_TIME)).mappings()]


def one_segment(conn: Connection, transcript_id: str, track: str, seq: int, *, edited: bool = True) -> Segment:
    """One segment, with its edit if `edited`. Raises NotFound."""
    key = (segment.c.transcript_id == transcript_id, segment.c.track == track, segment.c.seq == seq)
    row = conn.execute(_segments(*key, edited=edited)).mappings().one_or_none()
    if row is None:
        raise NotFound(transcript_id=transcript_id, track=track, seq=seq)
    return segment_of(row)


def last_segment(conn: Connection, transcript_id: str, track: str) -> Segment | None:
    """The segment of a track with the highest seq, as the engine wrote it: where a resumed stream goes on."""
    query = _segments(segment.c.transcript_id == transcript_id, segment.c.track == track, edited=False)
    row = conn.execute(query.order_by(segment.c.seq.desc()).limit(1)).mappings().one_or_none()
    return None if row is None else segment_of(row)


def _current_is_edited(conn: Connection, call_id: str) -> bool:
    edits = select(edit.c.seq).join(transcript, transcript.c.id == edit.c.transcript_id)
    return conn.execute(select(exists(edits.where(transcript.c.call_id == call_id, transcript.c.current)))).scalar_one()


def _make_current(conn: Connection, call_id: str, transcript_id: str) -> None:
    of_call = update(transcript).where(transcript.c.call_id == call_id)
    conn.execute(of_call.values(current=transcript.c.id == transcript_id))


def _get(conn: Connection, transcript_id: str) -> Transcript:
    found = _newest(conn, transcript.c.id == transcript_id)
    if found is None:
        raise NotFound(transcript_id=transcript_id)
    return found


def _newest(conn: Connection, *conditions: ColumnElement[bool]) -> Transcript | None:
    row = conn.execute(_select(*conditions).limit(1)).mappings().one_or_none()
    return None if row is None else Transcript(**row)


def _select(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Transcripts, newest first."""
    newest = transcript.c.created_at.desc(), transcript.c.id.desc()
    fields = (column.label(column.key) for column in transcript.c)  # "pass" is a word of Python: the field is pass_
    return select(*fields).where(*conditions).order_by(*newest)


def word_lists(words: Iterable[Word]) -> list[tuple[str, float, float, float]]:
    """Words as they are stored: as lists, in the order of Word's fields."""
    return [(w.word, w.start, w.end, w.probability) for w in words]


def _row(transcript_id: str, s: Segment) -> dict[str, Any]:
    """A segment as a row: of the decode what is known."""
    return {
        "transcript_id": transcript_id,
        "track": s.track,
        "seq": s.seq,
        "epoch": s.epoch,
        "revision": s.revision,
        "start": s.start,
        "end": s.end,
        "text": s.text,
        "speaker": s.speaker,
        "language": s.language,
        "words": word_lists(s.words),
        "decode": {name: value for name, value in asdict(s.decode).items() if value is not None},
    }


def _segments(*conditions: ColumnElement[bool], edited: bool) -> Select[Any]:
    return (select_segments() if edited else select(segment)).where(*conditions)


def select_segments() -> Select[Any]:
    """Segments, each with its edit or with none, in rows for `segment_of`."""
    columns = [*segment.c, *(edit.c[name].label(f"edit_{name}") for name in ("text", "words", "speaker", "edited_at"))]
    return select(*columns).join_from(segment, edit, isouter=True)


def segment_of(row: RowMapping) -> Segment:
    """The segment in a row, as its edit, if the row has one, made it."""
    fields = {column.name: row[column.name] for column in segment.c if column.name != "transcript_id"}
    if row.get("edit_edited_at") is not None:
        fields["edited"] = True
        if row["edit_text"] is not None:
            fields |= {"text": row["edit_text"], "words": row["edit_words"]}
        if row["edit_speaker"] is not None:
            fields["speaker"] = row["edit_speaker"] or None
    fields["words"] = tuple(Word(*word) for word in fields["words"])
    fields["decode"] = DecodeStats(**fields["decode"])
    return Segment(**fields)
