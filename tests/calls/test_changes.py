from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection

from callreel.calls import store
from callreel.calls.changes import MOST_SPEAKERS, MOST_TEXT, update_call
from callreel.calls.labels import MOST_LABELS, MOST_VALUE, merged
from callreel.calls.store import Call
from callreel.errors import InvalidInput, NotFound


@pytest.fixture
def call(conn: Connection, client_id: str) -> Call:
    made = store.create_call(conn, client_id=client_id, mode="live", state="live", title="Support", external_id="uid")
    store.add_track(conn, made.id, "caller")
    return store.get_call(conn, made.id, client_id)


def test_what_is_not_named_stays(conn: Connection, call: Call, client_id: str) -> None:
    assert update_call(conn, call.id, client_id) == call
    changed = update_call(conn, call.id, client_id, title=" A\tnew  title\n")
    assert (changed.title, changed.external_id, changed.tracks) == ("A new title", "uid", call.tracks)
    assert update_call(conn, call.id, client_id, external_id=None).external_id is None
    assert update_call(conn, call.id, client_id, external_id="other").title == "A new title"
    assert store.get_call(conn, call.id, client_id).external_id == "other"


def test_labels_and_speakers_change_one_by_one(conn: Connection, call: Call, client_id: str) -> None:
    update_call(conn, call.id, client_id, labels={"team": "a", "case": "7"}, speakers={"A": "Anna", "B": "Bo"})
    changed = update_call(conn, call.id, client_id, labels={"team": None, "x": "y"}, speakers={"A": "Ann", "B": None})
    assert (changed.labels, changed.speakers) == ({"case": "7", "x": "y"}, {"A": "Ann"})
    assert update_call(conn, call.id, client_id, speakers={"A": ""}).speakers == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "x" * (MOST_TEXT + 1)},
        {"external_id": "x" * (MOST_TEXT + 1)},
        {"labels": {"a b": "x"}},
        {"labels": {"a": "x" * (MOST_VALUE + 1)}},
        {"labels": {"a": "x\0"}},
        {"labels": {f"l{n}": "x" for n in range(MOST_LABELS + 1)}},
        {"speakers": {"A": "x" * (MOST_TEXT + 1)}},
        {"speakers": {"A\n": "Anna"}},
        {"speakers": {f"S{n}": "x" for n in range(MOST_SPEAKERS + 1)}},
    ],
)
def test_what_cannot_be_changes_nothing(conn: Connection, call: Call, client_id: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        update_call(conn, call.id, client_id, **{"title": "new", **changes})
    assert store.get_call(conn, call.id, client_id) == call


def test_only_its_client_changes_a_call(conn: Connection, call: Call, other_client_id: str) -> None:
    with pytest.raises(NotFound):
        update_call(conn, call.id, other_client_id, title="x")


def test_labels_of_a_new_call() -> None:
    assert merged({}, {"größe": "1", "a.b:c/d-e_f": "", "none": None}) == {"größe": "1", "a.b:c/d-e_f": ""}
