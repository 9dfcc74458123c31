from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from callreel.errors import InvalidInput
from callreel.storage.pages import MAX_LIMIT, newest_first
from callreel.storage.tables import client


def add(conn: Connection, *ages: tuple[str, str]) -> None:
    for created_at, id in ages:
        conn.execute(client.insert().values(id=id, name=id, role="user", created_at=created_at))


@given(ages=st.sets(st.tuples(st.sampled_from("123"), st.uuids().map(str)), max_size=30), limit=st.integers(1, 12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_pages_in_a_row_are_the_whole_list(conn: Connection, ages: set[tuple[str, str]], limit: int) -> None:
    conn.execute(client.delete())
    add(conn, *ages)
    seen: list[tuple[str, str]] = []
    cursor = None
    while True:
        page = newest_first(conn, client, cursor=cursor, limit=limit)
        assert len(page.data) <= limit
        seen += [(row["created_at"], row["id"]) for row in page.data]
        if (cursor := page.next) is None:
            break
    assert seen == sorted(ages, reverse=True)


def test_what_is_added_meanwhile_moves_nothing(conn: Connection) -> None:
    add(conn, ("1", "a"), ("2", "b"), ("3", "c"))
    first = newest_first(conn, client, cursor=None, limit=2)
    add(conn, ("4", "d"))
    second = newest_first(conn, client, cursor=first.next, limit=2)
    assert [row["id"] for row in (*first.data, *second.data)] == ["c", "b", "a"]


@pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1])
def test_a_limit_out_of_range_is_refused(conn: Connection, limit: int) -> None:
    with pytest.raises(InvalidInput, match="limit"):
        newest_first(conn, client, cursor=None, limit=limit)


@pytest.mark.parametrize("cursor", ["", "x", "????", "é", "WzEsMl0", "bm90IGpzb24", "WyIxIl0"])
def test_a_foreign_cursor_is_refused(conn: Connection, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        newest_first(conn, client, cursor=cursor, limit=1)


def test_a_refused_cursor_is_told_how_to_go_on(conn: Connection) -> None:
    with pytest.raises(InvalidInput) as refused:
        newest_first(conn, client, cursor="x", limit=1)
    assert "next" in refused.value.hint
