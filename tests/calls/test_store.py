from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import IntegrityError

from callreel.calls import store
from callreel.calls.store import Call, Stream
from callreel.errors import Conflict, InvalidInput, NotFound
from callreel.storage import tables
from tests.storage.plans import plan


@pytest.fixture
def call(conn: Connection, client_id: str) -> Call:
    return store.create_call(conn, client_id=client_id, mode="live", state="live", title="Support")


def open_stream(conn: Connection, call: Call, track: str = "caller") -> Stream:
    return store.open_stream(conn, call_id=call.id, track=track, protocol="whisperlive", options={"language": "en"})


def test_a_new_call(conn: Connection, call: Call, client_id: str) -> None:
    assert (call.title, call.state, call.mode, call.client_id) == ("Support", "live", "live", client_id)
    assert (call.external_id, call.speakers, call.labels, call.tracks) == (None, {}, {}, ())
    assert call.started_at == call.created_at
    assert store.get_call(conn, call.id, client_id) == call


def test_a_call_under_a_given_id_once(conn: Connection, client_id: str) -> None:
    given = "40325ec2-5efd-4bd3-805f-53576e581d13"
    assert store.create_call(conn, client_id=client_id, mode="live", state="live", call_id=given).id == given
    with pytest.raises(Conflict):
        store.create_call(conn, client_id=client_id, mode="live", state="live", call_id=given)


def test_a_call_of_another_client_is_not_found(conn: Connection, call: Call, other_client_id: str) -> None:
    with pytest.raises(NotFound):
        store.get_call(conn, call.id, other_client_id)
    assert store.list_calls(conn, other_client_id).data == []


def test_tracks_come_with_their_call_in_the_order_they_were_added(conn: Connection, call: Call, client_id: str) -> None:
    tracks = (store.add_track(conn, call.id, "caller", channel=0), store.add_track(conn, call.id, "agent", "A", 1))
    assert store.get_call(conn, call.id, client_id).tracks == tracks
    assert store.list_calls(conn, client_id).data[0].tracks == tracks


def test_a_track_name_is_taken_once_a_call(conn: Connection, call: Call, client_id: str) -> None:
    store.add_track(conn, call.id, "caller")
    with pytest.raises(Conflict, match="caller"):
        store.add_track(conn, call.id, "caller")
    another = store.create_call(conn, client_id=client_id, mode="live", state="live")
    store.add_track(conn, another.id, "caller")


def test_a_track_needs_its_call(conn: Connection) -> None:
    with pytest.raises(IntegrityError):
        store.add_track(conn, "no such call", "caller")


def test_calls_are_listed_newest_first_in_pages(conn: Connection, client_id: str) -> None:
    made = [store.create_call(conn, client_id=client_id, mode="file", state="processing") for _ in range(5)]
    first = store.list_calls(conn, client_id, limit=3)
    rest = store.list_calls(conn, client_id, cursor=first.next, limit=3)
    assert first.data + rest.data == made[::-1]
    assert rest.next is None


def test_an_external_id_may_come_again(conn: Connection, client_id: str) -> None:
    made = [
        store.create_call(conn, client_id=client_id, mode="live", state="live", external_id=external_id)
        for external_id in ("uid", "other", "uid")
    ]
    assert store.list_calls(conn, client_id, external_id="uid").data == [made[2], made[0]]


def test_calls_are_listed_by_state_labels_and_time(conn: Connection, client_id: str) -> None:
    made = [
        store.create_call(conn, client_id=client_id, mode="file", state=state)
        for state in ("done", "failed", "done", "live")
    ]
    for call, labels, at in zip(
        made,
        ({"team": "a", "x/y": "1"}, {"team": "a"}, {"team": "b"}, {}),
        (
            "2026-01-01T00:00:00.000Z",
            "2026-01-02T00:00:00.000Z",
            "2026-01-03T00:00:00.000Z",
            "2026-01-04T00:00:00.000Z",
        ),
        strict=True,
    ):
        conn.execute(update(tables.call).where(tables.call.c.id == call.id).values(labels=labels, created_at=at))

    def listed(**filters: Any) -> list[int]:
        ids = [call.id for call in made]
        return [ids.index(call.id) for call in store.list_calls(conn, client_id, **filters).data]

    assert listed(state="done") == [2, 0]
    assert listed(labels={"team": "a"}) == [1, 0]
    assert listed(labels={"team": "a", "x/y": "1"}) == [0]
    assert listed(labels={"team": "c"}) == []
    assert listed(since="2026-01-02T00:00:00.000Z", until="2026-01-04T00:00:00.000Z") == [2, 1]
    assert listed(labels={"team": "a"}, state="failed", since="2026") == [1]
    for name in ('"', "a b", "", "x" * 65, "a'b"):
        with pytest.raises(InvalidInput):
            listed(labels={name: "x"})


def test_lists_and_look_ups_use_indexes(conn: Connection, client_id: str) -> None:
    newest = "SEARCH call USING INDEX ix_call_client_id_created_at_id (client_id=?"
    for found in (
        plan(conn, lambda: store.list_calls(conn, client_id)),
        plan(conn, lambda: store.list_calls(conn, client_id, state="done", labels={"a": "b"}, since="2026")),
    ):
        assert newest in found and "FOR ORDER BY" not in found.split("track")[0]
    by_id = plan(conn, lambda: store.list_calls(conn, client_id, external_id="uid"))
    assert "(client_id=? AND external_id=?)" in by_id
    assert "SCAN" not in plan(conn, lambda: store.get_call(conn, "none", client_id))


def test_calls_by_their_ids(conn: Connection, call: Call, client_id: str, other_client_id: str) -> None:
    track = store.add_track(conn, call.id, "caller")
    other = store.create_call(conn, client_id=other_client_id, mode="live", state="live")
    found = {one.id: one.tracks for one in store.get_calls(conn, [call.id, other.id, "none"])}
    assert found == {call.id: (track,), other.id: ()}


def test_a_finished_call_keeps_its_end_and_what_is_known(conn: Connection, call: Call, client_id: str) -> None:
    store.add_track(conn, call.id, "caller")
    ended = store.finish_call(conn, call.id, state="processing", duration_s=61.5, language="en")
    assert (ended.state, ended.duration_s, ended.language) == ("processing", 61.5, "en")
    assert ended.ended_at is not None
    assert len(ended.tracks) == 1
    done = store.finish_call(conn, call.id, state="done", duration_s=None, language=None)
    assert (done.state, done.duration_s, done.language, done.ended_at) == ("done", 61.5, "en", ended.ended_at)
    with pytest.raises(NotFound):
        store.finish_call(conn, "no such call", state="done", duration_s=None, language=None)


def test_a_new_stream(conn: Connection, call: Call) -> None:
    stream = open_stream(conn, call)
    assert (stream.call_id, stream.track, stream.epoch, stream.state) == (call.id, "caller", 1, "open")
    assert (stream.offset_s, stream.accepted_samples, stream.options) == (0.0, 0, {"language": "en"})
    assert store.open_streams(conn) == [stream]


def test_epochs_rise_a_track_through_opening_and_reopening(conn: Connection, call: Call) -> None:
    first = open_stream(conn, call)
    assert open_stream(conn, call, "agent").epoch == 1
    second = open_stream(conn, call)
    assert second.epoch == 2
    store.close_stream(conn, first.id, 10)
    reopened = store.reopen_stream(conn, first.id)
    assert (reopened.id, reopened.epoch, reopened.state, reopened.closed_at) == (first.id, 3, "open", None)
    assert reopened.accepted_samples == 10


def test_a_closed_stream_is_not_open(conn: Connection, call: Call) -> None:
    first, second = open_stream(conn, call), open_stream(conn, call, "agent")
    closed = store.close_stream(conn, first.id, 32_000)
    assert (closed.state, closed.accepted_samples) == ("closed", 32_000)
    assert closed.closed_at is not None
    assert store.open_streams(conn) == [second]


def test_a_stream_that_is_not_there(conn: Connection) -> None:
    for change in (lambda: store.reopen_stream(conn, "none"), lambda: store.close_stream(conn, "none", 0)):
        with pytest.raises(NotFound):
            change()
