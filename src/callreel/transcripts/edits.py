"""Edits: what people make of a segment's text and speaker, beside what the engine wrote, which stays."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, delete, exists, select

from callreel import clock
from callreel.errors import InvalidInput, NotFound
from callreel.storage.fulltext import plain
from callreel.storage.inserts import insert
from callreel.storage.tables import call, edit, transcript
from callreel.text import Segment
from callreel.transcripts import lines, store
from callreel.transcripts.nouns import segment_key
from callreel.transcripts.retime import retimed

MOST_TEXT = 5000  # characters of one segment
MOST_LABEL = 200
NOBODY = ""  # as a speaker in the table, where NULL is the engine's


def change(
    conn: Connection,
    segment_id: str,
    client_id: str,
    *,
    text: str | UnsetType = UNSET,
    speaker: str | UnsetType | None = UNSET,
) -> Segment:
    """Set the text or the speaker label of a segment, or both; what is UNSET stays. Returns the segment as it is now.

    Its start and end stay; its words get times from the engine's (`retimed`). What is set to the engine's own again is
    no edit any more. Raises NotFound, for another client's segment too, and InvalidInput for what is too long.
    """
    transcript_id, track, seq = _own(conn, segment_id, client_id)
    machine = store.one_segment(conn, transcript_id, track, seq, edited=False)
    now = store.one_segment(conn, transcript_id, track, seq)
    new_text = now.text if text is UNSET else _clean(text, MOST_TEXT, "text")
    new_speaker = now.speaker if speaker is UNSET else (_clean(speaker, MOST_LABEL, "speaker") if speaker else None)
    if (new_text, new_speaker) == (machine.text, machine.speaker):
        return revert(conn, segment_id, client_id)
    values: dict[str, Any] = {
        "text": None,
        "words": None,
        "speaker": None if new_speaker == machine.speaker else new_speaker or NOBODY,
        "client_id": client_id,
        "edited_at": clock.now(),
    }
    if new_text != machine.text:
        words = retimed(machine.words, new_text, machine.start, machine.end)
        values |= {"text": new_text, "words": store.word_lists(words)}
    put = insert(conn, edit).values(transcript_id=transcript_id, track=track, seq=seq, **values)
    conn.execute(put.on_conflict_do_update(index_elements=["transcript_id", "track", "seq"], set_=values))
    return _current(conn, transcript_id, track, seq)


def revert(conn: Connection, segment_id: str, client_id: str) -> Segment:
    """Give the segment back as the engine wrote it, if it was edited. Raises NotFound."""
    transcript_id, track, seq = _own(conn, segment_id, client_id)
    conn.execute(delete(edit).where(edit.c.transcript_id == transcript_id, edit.c.track == track, edit.c.seq == seq))
    return _current(conn, transcript_id, track, seq)


def _current(conn: Connection, transcript_id: str, track: str, seq: int) -> Segment:
    lines.keep(conn, transcript_id, [(track, seq)])
    return store.one_segment(conn, transcript_id, track, seq)


def _own(conn: Connection, segment_id: str, client_id: str) -> tuple[str, str, int]:
    key = segment_key(segment_id)
    own = exists().where(transcript.c.id == key[0], call.c.id == transcript.c.call_id, call.c.client_id == client_id)
    if not conn.execute(select(own)).scalar_one():
        raise NotFound(segment_id=segment_id)
    return key


def _clean(text: str, most: int, field: str) -> str:
    """One line without white space at its ends or controls. Raises InvalidInput when it is longer than `most`."""
    if len(text) > most:
        raise InvalidInput(f"{field} may have {most} characters, not {len(text)}.", field=field)
    return " ".join(plain(text).split())
