"""Time and identity: wall clock, monotonic clock, ids that sort by age."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import uuid_utils

monotonic = time.monotonic


def now() -> str:
    """The wall clock as RFC 3339 UTC with milliseconds: a string that sorts by time."""
    return ago(0)


def ago(seconds: float) -> str:
    """As `now`, so many seconds earlier."""
    return stamp(datetime.now(UTC) - timedelta(seconds=seconds))


def stamp(at: datetime) -> str:
    """A time as `now` would have written it then; one without a zone is taken for UTC."""
    utc = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and later ids sort after earlier ones."""
    return str(uuid_utils.uuid7())
