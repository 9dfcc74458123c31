"""Text as the full-text index takes it.

The index (SQLite's FTS5, `unicode61 remove_diacritics 2`) makes a word of a run of letters and digits, in any case and
without diacritics. Chinese, Japanese and Thai write no spaces, so there every character is made a word of its own; a
query treated the same way becomes a phrase of them and finds any stretch of such text, exactly.
"""

from __future__ import annotations

import re
import unicodedata

BREAK = "\u200b"  # ends a word in the index, and takes no room where the text is shown

# Scripts without spaces between words: Thai to Myanmar, Khmer, kana, bopomofo, ideographs with their extensions.
_UNSPACED = re.compile(
    "(["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
    "])"
)


def plain(text: str) -> str:
    """`text`, character by character, with a space for each control character and each half of a surrogate pair."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def indexed(text: str) -> str:
    """`plain(text)` with a break around each character that is a word by itself; nothing else is put in."""
    return _UNSPACED.sub(rf"{BREAK}\1{BREAK}", plain(text))
