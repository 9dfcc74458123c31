"""What a client may change of its call: title, own id, labels, and what its speakers are called."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, update

from callreel.calls.labels import merged
from callreel.calls.store import Call, get_call
from callreel.errors import InvalidInput
from callreel.storage.fulltext import plain
from callreel.storage.tables import call

MOST_TEXT = 200  # characters of a title, an id, a speaker's label or name
MOST_SPEAKERS = 100  # with names, in a call


def update_call(
    conn: Connection,
    call_id: str,
    client_id: str,
    *,
    title: str | UnsetType = UNSET,
    external_id: str | UnsetType | None = UNSET,
    labels: Mapping[str, str | None] | UnsetType = UNSET,
    speakers: Mapping[str, str | None] | UnsetType = UNSET,
) -> Call:
    """Change what is not UNSET. Of `labels` and `speakers` only the named ones change; None takes one away.

    `speakers` maps the labels that segments carry to names: no segment is touched. Raises NotFound, for another
    client's call too, and InvalidInput.
    """
    found = get_call(conn, call_id, client_id)
    values: dict[str, object] = {}
    if title is not UNSET:
        values["title"] = _line(title, "title")
    if external_id is not UNSET:
        values["external_id"] = None if external_id is None else _line(external_id, "external_id")
    if labels is not UNSET:
        values["labels"] = merged(found.labels, labels)
    if speakers is not UNSET:
        values["speakers"] = _names(found.speakers, speakers)
    if values:
        conn.execute(update(call).where(call.c.id == call_id).values(values))
    return get_call(conn, call_id, client_id)


def _names(old: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    names = {**old, **{label: name and _line(name, "speakers") for label, name in changes.items()}}
    found = {label: name for label, name in names.items() if name}
    for label in changes:
        if _line(label, "speakers") != label:
            raise InvalidInput("A speaker's label is a line, as the segments carry it.", field="speakers")
    if len(found) > MOST_SPEAKERS:
        raise InvalidInput(f"At most {MOST_SPEAKERS} speakers of a call have names.", field="speakers")
    return found


def _line(text: str, field: str) -> str:
    if len(text) > MOST_TEXT:
        raise InvalidInput(f"{field} may have {MOST_TEXT} characters, not {len(text)}.", field=field)
    return " ".join(plain(text).split())
