"""Text as the full-text index takes it.

The index (SQLite's FTS5, `unicode61 remove_diacritics 2`) makes a word of a run of letters and digits, in any case and
without diacritics. Chinese, Japanese and Thai write no spaces, so there every character is made a word of its own; a
query treated the same way becomes a phrase of them and finds any stretch of such text, exactly.

This is the one place that knows which database searches: PostgreSQL's twin of `matches` belongs beside SQLite's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnClause, Connection, Integer, Select, column, func, literal_column, select, table

BREAK = "\u200b"  # ends a word in the index, and takes no room where the text is shown

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Scripts without spaces between words: Thai to Myanmar, Khmer, kana, bopomofo, ideographs with their extensions.
_UNSPACED = re.compile(
    "(["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
    "])"
)


def plain(text: str) -> str:
    """`text`, character by character, with a space for each control character and each half of a surrogate pair."""
    return _UNFIT.sub(" ", text)


def indexed(text: str) -> str:
    """`plain(text)` with a break around each character that is a word by itself; nothing else is put in."""
    return _UNSPACED.sub(rf"{BREAK}\1{BREAK}", plain(text))


# What a query is made of: a phrase, whose closing quote may be missing, or a word; `*` at its end leaves the end open.
_TERM = re.compile(r'"(?P<phrase>[^"]*)"?(?P<open>\*?)|(?P<word>[^\s"]+)')
OPEN, CLOSE = "\x02", "\x03"  # around what matched; `plain` text has neither


def terms(query: str) -> list[tuple[str, bool]]:
    """The phrases and words of a query that hold a letter or a digit, each with whether its last word is open."""
    found = []
    for term in _TERM.finditer(plain(query)):
        text = term["phrase"] if term["word"] is None else term["word"]
        if any(c.isalnum() for c in text):
            found.append((indexed(text.rstrip("*")), bool(term["open"]) or text.endswith("*")))
    return found


def matches(
    conn: Connection, wanted: Sequence[tuple[str, bool]], among: Sequence[int] | None = None
) -> Select[tuple[int, str]]:
    """Selects `id` of each line, `among` these if given, that holds all of the `terms`, and `marked`: its text, what
    matched between OPEN and CLOSE."""
    if conn.dialect.name != "sqlite":
        raise NotImplementedError(f"no full-text search on {conn.dialect.name}")
    index = table("transcript_fts", column("rowid", Integer))
    name: ColumnClause[str] = literal_column("transcript_fts")  # FTS5 takes the table's own name for all of its row
    # Each term is a string of FTS5, so nothing in it is syntax; side by side all of them must match.
    expression = " ".join('"' + text.replace('"', " ") + '"' + "*" * open_ended for text, open_ended in wanted)
    marked = func.highlight(name, 0, OPEN, CLOSE).label("marked")
    matching = select(index.c.rowid.label("id"), marked).where(name.op("MATCH")(expression))
    # As a sum the id filters one run through the matches; as itself FTS5 would run through them once for each id.
    return matching if among is None else matching.where((index.c.rowid + 0).in_(among))


def marks(text: str, marked: str) -> Iterator[tuple[int, int]]:
    """Where in `text` (begin, end) lies what is marked in `marked`, the marked form of `indexed(text)`."""
    at = begin = 0
    text = plain(text)
    for c in marked:
        if c == OPEN:
            begin = at
        elif c == CLOSE:
            yield begin, at
        elif at < len(text) and c == text[at]:  # anything else is a break that was put in
            at += 1
