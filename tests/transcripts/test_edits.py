from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select

from callreel.calls.store import create_call
from callreel.errors import InvalidInput, NotFound
from callreel.storage.tables import edit, transcript_line
from callreel.text import Segment, Word
from callreel.transcripts import edits, store
from callreel.transcripts.edits import MOST_TEXT
from callreel.transcripts.nouns import segment_noun
from tests.transcripts.segments import SPOKEN, spoken


@pytest.fixture
def transcript_id(conn: Connection, client_id: str) -> str:
    call = create_call(conn, client_id=client_id, mode="live", state="live")
    made = store.create_transcript(conn, call_id=call.id, pass_="final", engine="whisper", model="small")
    store.put_segments(conn, made.id, [SPOKEN, spoken(seq=1, start=2.0)])
    return made.id


@pytest.fixture
def segment_id(transcript_id: str) -> str:
    return f"{transcript_id}:caller:0"


def machine(conn: Connection, transcript_id: str) -> Segment:
    return store.segments(conn, transcript_id, edited=False)[0]


def line(conn: Connection) -> str:
    found: str = conn.execute(select(transcript_line.c.text).order_by(transcript_line.c.seq)).scalars().first() or ""
    return found


def test_an_edit_changes_what_is_read_and_keeps_times_and_the_engines_text(
    conn: Connection, client_id: str, transcript_id: str, segment_id: str
) -> None:
    changed = edits.change(conn, segment_id, client_id, text=" Hello\n here ")
    expected = spoken(
        text="Hello here", words=(Word("Hello", 0.5, 0.8, 0.97), Word(" here", 0.85, 1.25, 1.0)), edited=True
    )
    assert changed == expected
    assert store.segments(conn, transcript_id) == [expected, spoken(seq=1, start=2.0)]
    assert machine(conn, transcript_id) == SPOKEN
    assert store.last_segment(conn, transcript_id, "caller") == spoken(seq=1, start=2.0)
    assert segment_noun(transcript_id, changed)["edited"] is True
    assert line(conn) == "Hello here"


def test_text_and_speaker_are_edited_apart(conn: Connection, client_id: str, segment_id: str) -> None:
    assert edits.change(conn, segment_id, client_id, speaker="B") == spoken(speaker="B", edited=True)
    both = edits.change(conn, segment_id, client_id, text="Hello")
    assert (both.text, both.speaker) == ("Hello", "B")
    nobody = edits.change(conn, segment_id, client_id, speaker=None)
    assert (nobody.text, nobody.speaker, nobody.edited) == ("Hello", None, True)
    assert conn.execute(select(edit.c.client_id)).scalar_one() == client_id


def test_an_edit_of_the_text_leaves_the_speaker_to_the_engine(
    conn: Connection, client_id: str, transcript_id: str, segment_id: str
) -> None:
    edits.change(conn, segment_id, client_id, text="Hello")
    store.put_segments(conn, transcript_id, [spoken(revision=2, text="Hallo", speaker="C")])
    now = store.segments(conn, transcript_id)[0]
    assert (now.text, now.speaker) == ("Hello", "C")
    assert line(conn) == "Hello"


def test_reverting_gives_back_what_the_engine_wrote(conn: Connection, client_id: str, segment_id: str) -> None:
    edits.change(conn, segment_id, client_id, text="Hello", speaker="B")
    assert edits.revert(conn, segment_id, client_id) == SPOKEN
    assert edits.revert(conn, segment_id, client_id) == SPOKEN
    assert line(conn) == "Hello there"


def test_what_is_set_back_is_no_edit(conn: Connection, client_id: str, segment_id: str) -> None:
    edits.change(conn, segment_id, client_id, text="Hello", speaker="B")
    assert edits.change(conn, segment_id, client_id, text="Hello there").edited
    assert edits.change(conn, segment_id, client_id, speaker="A") == SPOKEN
    assert conn.execute(select(func.count()).select_from(edit)).scalar_one() == 0


def test_a_segment_may_be_emptied(conn: Connection, client_id: str, segment_id: str) -> None:
    emptied = edits.change(conn, segment_id, client_id, text="")
    assert (emptied.text, emptied.words, emptied.edited) == ("", (), True)


def test_controls_do_not_come_in(conn: Connection, client_id: str, segment_id: str) -> None:
    assert edits.change(conn, segment_id, client_id, text="a\x00b\x02c\ud800d").text == "a b c d"


def test_too_much_is_refused(conn: Connection, client_id: str, segment_id: str) -> None:
    with pytest.raises(InvalidInput, match="text"):
        edits.change(conn, segment_id, client_id, text="x" * (MOST_TEXT + 1))
    with pytest.raises(InvalidInput, match="speaker"):
        edits.change(conn, segment_id, client_id, speaker="x" * 201)


def test_only_its_client_edits_a_segment(
    conn: Connection, client_id: str, other_client_id: str, transcript_id: str
) -> None:
    for id in (f"{transcript_id}:caller:9", f"{transcript_id}::0", f"{transcript_id}:caller:x", "", "a:b:" + "9" * 99):
        with pytest.raises(NotFound):
            edits.change(conn, id, client_id, text="x")
    for change in (edits.revert, edits.change):
        with pytest.raises(NotFound):
            change(conn, f"{transcript_id}:caller:0", other_client_id)


def test_a_track_may_have_any_name(conn: Connection, client_id: str, transcript_id: str) -> None:
    store.put_segments(conn, transcript_id, [spoken(track="a:b: c")])
    assert edits.change(conn, f"{transcript_id}:a:b: c:0", client_id, text="x").text == "x"
