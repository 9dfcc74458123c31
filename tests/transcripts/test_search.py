from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete

from callreel.accounts.keys import create_client
from callreel.calls import store as calls
from callreel.errors import InvalidInput
from callreel.storage import sqlite, tables
from callreel.storage.database import Database
from callreel.storage.migrate import migrate
from callreel.text import Segment, Word
from callreel.transcripts import edits, store
from callreel.transcripts.search import CUT, MOST_QUERY, SNIPPET, Moment, search
from tests.storage.plans import plan
from tests.transcripts.segments import spoken


class Archive:
    """The transcripts of one client."""

    def __init__(self, conn: Connection, client_id: str) -> None:
        self.conn, self.client_id = conn, client_id

    def call(self, *texts: str, title: str = "", pass_: store.Pass = "final", call_id: str | None = None) -> str:
        """A call in which these are said, one a second; returns the id of its transcript."""
        if call_id is None:
            call = calls.create_call(self.conn, client_id=self.client_id, mode="file", state="done", title=title)
            call_id = call.id
        made = store.create_transcript(self.conn, call_id=call_id, pass_=pass_, engine="whisper", model="small")
        said = [segment(seq, text) for seq, text in enumerate(texts)]
        store.put_segments(self.conn, made.id, said)
        store.finish_transcript(self.conn, made.id, state="done", language="en", warnings=())
        return made.id

    def find(self, query: str, **options: object) -> list[Moment]:
        return search(self.conn, self.client_id, query, **options).data  # type: ignore[arg-type]

    def texts(self, query: str) -> list[str]:
        return [moment.snippet for moment in self.find(query)]


def segment(seq: int, text: str) -> Segment:
    """Said in the second `seq`, a tenth a word."""
    words = tuple(Word(f" {word}", seq + i / 10, seq + (i + 1) / 10) for i, word in enumerate(text.split()))
    return spoken(seq=seq, start=float(seq), end=seq + 1.0, text=text, words=words)


@pytest.fixture
def archive(conn: Connection, client_id: str) -> Archive:
    return Archive(conn, client_id)


def test_a_moment_says_where_when_and_by_whom(archive: Archive, client_id: str) -> None:
    transcript_id = archive.call("Good morning", "the invoice, please, that invoice", title="Support")
    (moment,) = archive.find("invoice")
    call = calls.get_call(archive.conn, moment.call_id, client_id)
    assert moment == Moment(
        call_id=call.id,
        call_title="Support",
        call_started_at=call.started_at,
        transcript_id=transcript_id,
        segment_id=f"{transcript_id}:caller:1",
        track="caller",
        speaker="A",
        start=1.1,
        end=2.0,
        snippet="the invoice, please, that invoice",
        matches=((4, 11), (26, 33)),
    )


def test_all_words_phrases_and_beginnings(archive: Archive) -> None:
    archive.call("pay the open invoice", "open the door", "invoices are open")
    assert archive.texts("open") == ["pay the open invoice", "open the door", "invoices are open"]
    assert archive.texts("the open") == ["pay the open invoice", "open the door"]
    assert archive.texts('"the open"') == ["pay the open invoice"]
    assert archive.texts('"the open') == ["pay the open invoice"]
    assert archive.texts("invoice") == ["pay the open invoice"]
    assert archive.texts("invoic* OPEN") == ["pay the open invoice", "invoices are open"]
    assert archive.texts('"are op"*') == ["invoices are open"]
    assert archive.texts("window") == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Die Straße nach Köln", "koln"),
        ("Crème brûlée à la carte", "BRULEE creme"),
        ("Привет, мой друг", "привет ДРУГ"),
        ("Habari za asubuhi, rafiki", "asub*"),
        ("我们明天在北京开会", "北京"),
        ("我们明天在北京开会", "明天在"),
        ("会議は明日です", "明日"),
        ("สวัสดีครับ", "ครับ"),
        ("안녕하세요 여러분", "안녕*"),
    ],
)
def test_in_many_languages(archive: Archive, text: str, query: str) -> None:
    archive.call(text, "something else")
    assert archive.texts(query) == [text]


def test_where_matches_lie_in_text_without_spaces(archive: Archive) -> None:
    archive.call("我们明天在北京开会")
    (moment,) = archive.find("北京")
    assert [moment.snippet[begin:end] for begin, end in moment.matches] == ["北京"]
    assert archive.find("京北") == []


HOSTILE = (
    "AND",
    "a OR b",
    "NEAR(a b)",
    "text:x",
    "-a",
    "^a",
    "a + b",
    "(a",
    "'a",
    '"a" *',
    "a'; DROP TABLE call",
    "%a_",
)


@pytest.mark.parametrize("query", [*HOSTILE, "a\x00b", "a\x02b\x03", "\ud800a", "a " * 249, "a" * MOST_QUERY])
def test_no_query_is_an_error_of_syntax(archive: Archive, query: str) -> None:
    archive.call("and a b or near text x")
    archive.find(query)


@given(query=st.text(max_size=MOST_QUERY) | st.text(alphabet="ab \"*():^-+{}'\\,ñ你", max_size=40))
@example('"')
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_any_text_is_a_query(archive: Archive, query: str) -> None:
    try:
        archive.find(query)
    except InvalidInput as error:
        assert not any(c.isalnum() for c in query), error


@given(text=st.text(min_size=1, max_size=300).filter(lambda t: "\ud800" not in t))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_what_is_marked_is_what_was_asked_for(archive: Archive, text: str) -> None:
    """Whatever stands around it: a match is shown where it is."""
    archive.conn.execute(delete(tables.call))
    said = f"{text} zanzibar 北京 {text}".encode(errors="replace").decode()
    archive.call(said)
    (moment,) = archive.find("zanzibar 北京")
    shown = {moment.snippet[begin:end] for begin, end in moment.matches}
    assert {"zanzibar", "北京"} <= shown | ({"北京"} if CUT in moment.snippet else set())


@pytest.mark.parametrize("query", ["", " ", '"" *', "?!", "x" * (MOST_QUERY + 1)])
def test_a_query_that_cannot_be(archive: Archive, query: str) -> None:
    with pytest.raises(InvalidInput):
        archive.find(query)


def test_a_client_finds_its_own_calls_only(archive: Archive, other_client_id: str) -> None:
    archive.call("secret")
    assert Archive(archive.conn, other_client_id).find("secret") == []


def test_only_what_is_current_is_found(archive: Archive) -> None:
    live = archive.call("draft version", pass_="live")
    call_id = archive.find("version")[0].call_id
    archive.call("clean version", pass_="final", call_id=call_id)
    assert archive.texts("version") == ["clean version"]
    store.accept(archive.conn, live, call_id)
    assert archive.texts("version") == ["draft version"]


def test_edits_are_found_and_what_they_replace_is_not(archive: Archive) -> None:
    transcript_id = archive.call("meat me there")
    edits.change(archive.conn, f"{transcript_id}:caller:0", archive.client_id, text="meet me there")
    assert archive.texts("meet") == ["meet me there"]
    assert archive.find("meat") == []
    edits.revert(archive.conn, f"{transcript_id}:caller:0", archive.client_id)
    assert archive.find("meet") == []
    assert archive.texts("meat") == ["meat me there"]


def test_what_is_deleted_leaves_the_index(archive: Archive, client_id: str) -> None:
    transcript_id = archive.call("forget me", "forget that")
    edits.change(archive.conn, f"{transcript_id}:caller:0", client_id, text="forget you")
    archive.conn.execute(delete(tables.call))
    archive.conn.exec_driver_sql("INSERT INTO transcript_fts(transcript_fts, rank) VALUES ('integrity-check', 1)")
    count = "SELECT count(*) FROM transcript_fts WHERE transcript_fts MATCH 'forget'"
    assert archive.conn.exec_driver_sql(count).scalar_one() == 0


def test_pages_go_from_new_calls_to_old_ones_and_through_each_in_time(archive: Archive) -> None:
    for title in ("old", "new"):
        archive.call("yes one", "no", "yes two", "yes three", title=title)
    expected = [(title, f"yes {n}") for title in ("new", "old") for n in ("one", "two", "three")]
    for limit in range(1, 8):
        seen: list[tuple[str, str]] = []
        cursor = None
        while True:
            page = search(archive.conn, archive.client_id, "yes", cursor=cursor, limit=limit)
            seen += [(moment.call_title, moment.snippet) for moment in page.data]
            cursor = page.next
            if cursor is None:
                break
        assert seen == expected
    with pytest.raises(InvalidInput, match="cursor"):
        archive.find("yes", cursor="bm8")
    with pytest.raises(InvalidInput, match="limit"):
        archive.find("yes", limit=0)


def test_within_one_call(archive: Archive) -> None:
    archive.call("yes", title="a")
    archive.call("yes", title="b")
    call_id = archive.find("yes")[1].call_id
    assert [moment.call_title for moment in archive.find("yes", call_id=call_id)] == ["a"]


def test_a_long_segment_is_cut_around_the_match(archive: Archive) -> None:
    archive.call("before " * 40 + "needle " + "after " * 60)
    (moment,) = archive.find("needle")
    assert moment.snippet.startswith(f"{CUT}before ") and moment.snippet.endswith(f"after{CUT}")
    assert len(moment.snippet) <= SNIPPET + 2
    assert [moment.snippet[begin:end] for begin, end in moment.matches] == ["needle"]
    assert moment.start == 4.0  # the 41st word, a tenth each


def test_without_word_times_a_moment_starts_with_its_segment(archive: Archive) -> None:
    transcript_id = archive.call("x")
    store.put_segments(archive.conn, transcript_id, [spoken(seq=5, start=7.0, end=9.0, text="no times", words=())])
    assert [moment.start for moment in archive.find("times")] == [7.0]


def test_a_search_goes_from_the_index_to_its_rows(archive: Archive) -> None:
    found = plan(archive.conn, lambda: archive.find("nothing"))
    assert "VIRTUAL TABLE INDEX" in found
    assert found.count("SCAN") == 1  # the index itself
    assert "SCAN segment" not in found and "SCAN call" not in found


def test_the_reader_can_search(database: Database) -> None:
    def fill(conn: Connection) -> str:
        client_id, _ = create_client(conn, "owner", "user")
        Archive(conn, client_id).call("hello there")
        return client_id

    client_id = database.submit(fill).result()
    page = asyncio.run(database.read(lambda conn: search(conn, client_id, "hello")))
    assert [moment.snippet for moment in page.data] == ["hello there"]


def test_the_index_survives_a_vacuum(tmp_path: Path) -> None:
    path = tmp_path / "callreel.db"
    with sqlite.connect(path, sqlite.MIGRATOR) as conn, conn.begin():
        migrate(conn)
    with sqlite.connect(path, sqlite.WRITER) as conn:
        with conn.begin():
            archive = Archive(conn, create_client(conn, "owner", "user")[0])
            for n in range(5):
                archive.call(f"number {n}")
            conn.execute(delete(tables.transcript_line).where(tables.transcript_line.c.text == "number 1"))
        sqlite.driver(conn).execute("VACUUM")
        with conn.begin():
            assert archive.texts("number 3") == ["number 3"]
