"""Lists in pages, newest first: a cursor says where the next page starts, however much was added meanwhile."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, select, tuple_

from callreel.errors import InvalidInput

T = TypeVar("T")

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `next` is the cursor of the page after it, None at the end."""

    data: list[T]
    next: str | None


def newest_first(
    conn: Connection, table: Table, *conditions: ColumnElement[bool], cursor: str | None, limit: int
) -> Page[RowMapping]:
    """The rows of `table` under `conditions` by falling (created_at, id), after `cursor`, at most `limit` (1..1000).

    Raises InvalidInput for a limit out of range, or a cursor that is not one of ours.
    """
    require_limit(limit)
    age = tuple_(table.c.created_at, table.c.id)
    query = select(table).where(*conditions).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(age < tuple_(*place_of(cursor, tuple[str, str])))
    rows = conn.execute(query).mappings().all()
    data = list(rows[:limit])
    return Page(data, cursor_at((data[-1]["created_at"], data[-1]["id"])) if len(rows) > limit else None)


def require_limit(limit: int) -> None:
    """Raise InvalidInput for a page size out of 1..1000."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(
            f"limit must lie in 1..{MAX_LIMIT}, not {limit}.", hint="More come page by page: pass `next`", field="limit"
        )


def cursor_at(place: Sequence[Any]) -> str:
    """The cursor that stands for a place in the order of a list: what its last row is ordered by."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(cursor: str, form: type[T]) -> T:
    """The place a cursor stands for. Raises InvalidInput for one that is not ours, or of a list of another `form`."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=form)
    except (ValueError, msgspec.MsgspecError):
        raise InvalidInput(
            "This cursor is not one of ours.",
            hint="Pass `next` of a page of the same list as it came, or no cursor to begin with the newest",
            field="cursor",
        ) from None
