from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from callreel.calls.store import create_call
from callreel.errors import Conflict, NotFound
from callreel.storage import tables
from callreel.storage.fulltext import BREAK
from callreel.storage.tables import transcript_line as LINE
from callreel.text import DecodeStats, Word
from callreel.transcripts import edits, store
from callreel.transcripts.lines import KEYS_A_QUERY
from callreel.transcripts.store import Pass, Transcript
from tests.storage.plans import plan
from tests.transcripts.segments import spoken


@pytest.fixture
def call_id(conn: Connection, client_id: str) -> str:
    return create_call(conn, client_id=client_id, mode="live", state="live").id


@pytest.fixture
def live(conn: Connection, call_id: str) -> Transcript:
    return create(conn, call_id, "live")


def create(conn: Connection, call_id: str, pass_: Pass) -> Transcript:
    return store.create_transcript(conn, call_id=call_id, pass_=pass_, engine="whisper", model="small", job_id="job")


def finish(conn: Connection, transcript: Transcript, state: store.State = "done") -> Transcript:
    return store.finish_transcript(conn, transcript.id, state=state, language="en", warnings=["low volume"])


def current_id(conn: Connection, call_id: str) -> str | None:
    found = store.current_transcript(conn, call_id)
    return found.id if found else None


def test_a_live_transcript_is_current_at_once(conn: Connection, call_id: str) -> None:
    assert store.current_transcript(conn, call_id) is None
    assert store.live_transcript(conn, call_id) is None
    live = create(conn, call_id, "live")
    assert (live.pass_, live.state, live.current, live.warnings, live.language) == ("live", "running", True, [], None)
    assert (live.engine, live.model, live.job_id) == ("whisper", "small", "job")
    assert store.current_transcript(conn, call_id) == store.live_transcript(conn, call_id) == live


def test_a_finished_final_takes_over_from_the_live_one_and_both_stay(
    conn: Connection, call_id: str, live: Transcript
) -> None:
    final = create(conn, call_id, "final")
    assert not final.current
    finish(conn, live)
    assert current_id(conn, call_id) == live.id
    finished = finish(conn, final)
    assert (finished.current, finished.state, finished.language) == (True, "done", "en")
    assert finished.warnings == ["low volume"]
    assert store.current_transcript(conn, call_id) == finished
    kept = store.live_transcript(conn, call_id)
    assert kept is not None
    assert (kept.id, kept.current) == (live.id, False)


def test_a_failed_final_leaves_the_live_one_current(conn: Connection, call_id: str, live: Transcript) -> None:
    finish(conn, create(conn, call_id, "final"), "failed")
    assert current_id(conn, call_id) == live.id


def test_a_live_one_does_not_displace_a_finished_final(conn: Connection, call_id: str) -> None:
    final = finish(conn, create(conn, call_id, "final"))
    assert not create(conn, call_id, "live").current
    assert current_id(conn, call_id) == final.id


def test_the_final_that_finished_last_is_current(conn: Connection, call_id: str) -> None:
    first, second = create(conn, call_id, "final"), create(conn, call_id, "final")
    finish(conn, second)
    finish(conn, first)
    assert current_id(conn, call_id) == first.id


def test_calls_do_not_disturb_each_other(conn: Connection, client_id: str, live: Transcript) -> None:
    other = create_call(conn, client_id=client_id, mode="live", state="live").id
    finish(conn, create(conn, other, "final"))
    assert current_id(conn, live.call_id) == live.id


def test_finishing_what_is_not_there(conn: Connection) -> None:
    with pytest.raises(NotFound):
        store.finish_transcript(conn, "none", state="done", language=None, warnings=[])


def test_segments_come_back_as_they_were_put(conn: Connection, live: Transcript) -> None:
    put = [spoken(), spoken(seq=1, start=2.0, end=3.0, words=(), speaker=None, language=None, decode=DecodeStats())]
    assert store.put_segments(conn, live.id, put) == 2
    assert store.segments(conn, live.id) == put
    assert store.put_segments(conn, live.id, []) == 0


def test_words_and_decode_are_stored_compactly(conn: Connection, live: Transcript) -> None:
    store.put_segments(conn, live.id, [spoken()])
    words, decode = conn.exec_driver_sql("SELECT words, decode FROM segment").one()
    assert words == '[["Hello",0.5,0.8,0.97],[" there",0.85,1.25,0.5]]'
    assert decode == '{"tokens":4,"avg_logprob":-0.25,"compression_ratio":1.1,"temperature":0.0}'


def test_numbers_of_numpy_are_numbers(conn: Connection, live: Transcript) -> None:
    word = Word("Hello", np.float64(0.5), np.float32(0.75), np.float64(1.0))  # type: ignore[arg-type]
    store.put_segments(conn, live.id, [spoken(words=(word,), start=np.float64(0.5))])
    assert store.segments(conn, live.id) == [spoken(words=(Word("Hello", 0.5, 0.75, 1.0),))]


def test_segments_are_ordered_by_start_track_seq(conn: Connection, live: Transcript) -> None:
    expected = [
        spoken(track="agent", seq=7, start=1.0),
        spoken(track="caller", seq=1, start=1.0),
        spoken(track="caller", seq=2, start=1.0),
        spoken(track="agent", seq=3, start=2.0),
    ]
    store.put_segments(conn, live.id, expected[::-1])
    assert store.segments(conn, live.id) == expected


def test_the_last_segment_of_a_track_has_the_highest_seq(conn: Connection, live: Transcript) -> None:
    assert store.last_segment(conn, live.id, "caller") is None
    store.put_segments(conn, live.id, [spoken(seq=10, start=5.0), spoken(seq=9, start=6.0), spoken(track="x", seq=11)])
    assert store.last_segment(conn, live.id, "caller") == spoken(seq=10, start=5.0)


def test_a_partial_is_never_stored(conn: Connection, live: Transcript) -> None:
    with pytest.raises(ValueError, match="partial"):
        store.put_segments(conn, live.id, [spoken(), spoken(seq=1, completed=False)])
    assert store.segments(conn, live.id) == []


def test_an_instance_that_lost_its_stream_overwrites_nothing(conn: Connection, live: Transcript) -> None:
    successor = spoken(epoch=2, revision=1, text="right", end=9.0, speaker="B", words=(), decode=DecodeStats(tokens=1))
    assert store.put_segments(conn, live.id, [successor]) == 1
    assert store.put_segments(conn, live.id, [spoken(epoch=1, revision=99, text="zombie")]) == 0
    assert store.segments(conn, live.id) == [successor]


versions = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=12)


@given(versions=versions, together=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_in_any_order_the_highest_version_stays(
    conn: Connection, live: Transcript, versions: list[tuple[int, int]], together: bool
) -> None:
    conn.execute(delete(tables.segment))
    arrivals = [spoken(epoch=e, revision=r, text=f"{e}.{r}", start=float(e), end=e + r / 10) for e, r in versions]
    changed = (
        store.put_segments(conn, live.id, arrivals)
        if together
        else sum(store.put_segments(conn, live.id, [segment]) for segment in arrivals)
    )
    best = max(arrivals, key=lambda segment: (segment.epoch, segment.revision))
    assert store.segments(conn, live.id) == [best]
    assert changed == len([v for i, v in enumerate(versions) if all(v > earlier for earlier in versions[:i])])


def lines(conn: Connection) -> list[tuple[str, str]]:
    return [(transcript_id, text) for transcript_id, text in conn.execute(select(LINE.c.transcript_id, LINE.c.text))]


def test_the_line_of_a_segment_follows_it(conn: Connection, live: Transcript) -> None:
    store.put_segments(conn, live.id, [spoken(text="one"), spoken(seq=1, text="two"), spoken(seq=2, text="你好")])
    store.put_segments(conn, live.id, [spoken(revision=2, text="one more"), spoken(seq=1, revision=0, text="late")])
    broken = "".join(f"{BREAK}{c}{BREAK}" for c in "你好")
    assert lines(conn) == [(live.id, "one more"), (live.id, "two"), (live.id, broken)]


def test_many_segments_at_once(conn: Connection, live: Transcript) -> None:
    many = [spoken(seq=n, start=float(n), text=f"number {n}") for n in range(KEYS_A_QUERY + 1)]
    assert store.put_segments(conn, live.id, many) == len(many)
    assert lines(conn) == [(live.id, s.text) for s in many]


def test_an_edited_transcript_stays_current_until_another_is_accepted(
    conn: Connection, client_id: str, live: Transcript
) -> None:
    store.put_segments(conn, live.id, [spoken()])
    edits.change(conn, f"{live.id}:caller:0", client_id, text="Hello here")
    final = finish(conn, create(conn, live.call_id, "final"))
    assert not final.current
    assert current_id(conn, live.call_id) == live.id
    assert store.accept(conn, final.id, live.call_id).current
    assert current_id(conn, live.call_id) == final.id
    later = finish(conn, create(conn, live.call_id, "final"))  # what was edited is not current any more
    assert current_id(conn, live.call_id) == later.id


def test_what_cannot_be_accepted(conn: Connection, client_id: str, live: Transcript) -> None:
    with pytest.raises(Conflict, match="finished"):
        store.accept(conn, live.id, live.call_id)
    other = create_call(conn, client_id=client_id, mode="live", state="live").id
    with pytest.raises(NotFound):
        store.accept(conn, finish(conn, live).id, other)


def test_a_copy_has_the_text_of_the_engine(conn: Connection, client_id: str, call_id: str) -> None:
    known = create(conn, call_id, "final")
    heard = [spoken(), spoken(seq=1, start=2.0, text="again"), spoken(track="agent", text="你")]
    store.put_segments(conn, known.id, heard)
    known = finish(conn, known)
    edits.change(conn, f"{known.id}:caller:0", client_id, text="edited")
    other = create_call(conn, client_id=client_id, mode="file", state="processing").id
    copy = store.copy_transcript(conn, known.id, call_id=other, job_id="another")
    assert replace(copy, id=known.id, call_id=call_id, job_id="job", created_at=known.created_at) == known
    assert store.segments(conn, copy.id) == store.segments(conn, known.id, edited=False)
    assert sorted(text for id, text in lines(conn) if id == copy.id) == ["Hello there", "again", f"{BREAK}你{BREAK}"]
    with pytest.raises(NotFound):
        store.copy_transcript(conn, "none", call_id=other, job_id=None)


def test_reading_a_transcript_uses_indexes(conn: Connection, live: Transcript) -> None:
    for run in (
        lambda: store.segments(conn, live.id),
        lambda: store.one_segment(conn, live.id, "caller", 0),
        lambda: store.last_segment(conn, live.id, "caller"),
        lambda: store.current_transcript(conn, live.call_id),
    ):
        assert "SCAN" not in plan(conn, run)


def test_segments_need_their_transcript_and_go_with_its_call(conn: Connection, live: Transcript) -> None:
    store.put_segments(conn, live.id, [spoken()])
    conn.execute(delete(tables.call))
    assert conn.execute(select(tables.segment)).all() == []
    with pytest.raises(IntegrityError):
        store.put_segments(conn, live.id, [spoken()])


def test_the_upsert_is_the_same_on_postgresql(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conn.dialect, "name", "postgresql")
    executed = []
    monkeypatch.setattr(type(conn), "execute", lambda self, statement, rows=(): executed.append(statement) or Changed)
    store.put_segments(conn, "t", [spoken()])
    sql = " ".join(str(executed[0].compile(dialect=postgresql.dialect())).split())
    assert "ON CONFLICT (transcript_id, track, seq) DO UPDATE SET epoch = excluded.epoch" in sql
    assert sql.endswith("WHERE (excluded.epoch, excluded.revision) > (segment.epoch, segment.revision)")


class Changed:
    rowcount = 0
