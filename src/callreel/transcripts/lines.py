"""The lines that full-text search reads: a segment's text, edited or not, as the index takes it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, tuple_

from callreel.storage.fulltext import indexed
from callreel.storage.inserts import insert
from callreel.storage.tables import edit, segment, transcript_line

KEYS_A_QUERY = 500  # SQLite bounds what one statement may be given


def keep(conn: Connection, transcript_id: str, keys: Sequence[tuple[str, int]]) -> None:
    """Bring the lines of these (track, seq) up to what the segments and edits say now. A segment takes its line along
    when it is deleted."""
    for i in range(0, len(keys), KEYS_A_QUERY):
        some = tuple_(segment.c.track, segment.c.seq).in_(keys[i : i + KEYS_A_QUERY])
        effective = (
            select(segment.c.track, segment.c.seq, func.coalesce(edit.c.text, segment.c.text).label("text"))
            .join_from(segment, edit, isouter=True)
            .where(segment.c.transcript_id == transcript_id, some)
        )
        rows = [
            {"transcript_id": transcript_id, "track": row.track, "seq": row.seq, "text": indexed(row.text)}
            for row in conn.execute(effective)
        ]
        if rows:
            put = insert(conn, transcript_line)
            put = put.on_conflict_do_update(
                index_elements=["transcript_id", "track", "seq"],
                set_={"text": put.excluded.text},
                where=put.excluded.text != transcript_line.c.text,
            )
            conn.execute(put, rows)
