"""Calls, tracks and streams, in SQL. Every function is one step inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, ScalarSelect, func, literal, select, update
from sqlalchemy import insert as insert_into

from callreel import clock
from callreel.calls.labels import merged, require_names
from callreel.errors import Conflict, NotFound
from callreel.storage.inserts import insert
from callreel.storage.pages import DEFAULT_LIMIT, Page, newest_first
from callreel.storage.tables import call, stream, track

State = Literal["live", "processing", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Track:
    """One audio source inside a call; `speaker` is a label, `channel` the number of its channel in a file, from 0."""

    id: str
    call_id: str
    name: str
    speaker: str | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One conversation. `speakers` maps a segment's speaker label to a name; times `*_at` are RFC 3339."""

    id: str
    client_id: str
    external_id: str | None
    title: str
    state: State
    mode: str
    started_at: str | None
    ended_at: str | None
    duration_s: float | None
    language: str | None
    speakers: dict[str, str]
    labels: dict[str, Any]
    created_at: str
    tracks: tuple[Track, ...] = ()

    @classmethod
    def of_file(
        cls, title: str, duration_s: float, language: str | None, tracks: Iterable[tuple[str, str | None, int | None]]
    ) -> Call:
        """A call that stands in no database: a file that was transcribed on the command line.

        `tracks` are (name, speaker, channel).
        """
        at = clock.now()
        call_id = clock.new_id()
        return cls(
            id=call_id,
            client_id="",
            external_id=None,
            title=title,
            state="done",
            mode="postcall_only",
            started_at=at,
            ended_at=at,
            duration_s=duration_s,
            language=language,
            speakers={},
            labels={},
            created_at=at,
            tracks=tuple(Track(clock.new_id(), call_id, *track) for track in tracks),
        )


@dataclass(frozen=True, slots=True)
class Stream:
    """A connection that carries a track's audio in.

    `epoch` is its lease number, of two streams of one track the later has the higher; `offset_s` is where it starts on
    the call's clock; `accepted_samples`, at 16 kHz, is what the track log holds.
    """

    id: str
    call_id: str
    track: str
    protocol: str
    epoch: int
    offset_s: float
    accepted_samples: int
    state: Literal["open", "closed"]
    options: dict[str, Any]
    opened_at: str
    closed_at: str | None


def create_call(
    conn: Connection,
    *,
    client_id: str,
    external_id: str | None = None,
    title: str = "",
    mode: str,
    state: State,
    call_id: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Call:
    """A new call, started now. `external_id` is a protocol's own id, which need not be unique.

    `call_id` is for a protocol that names the call itself; raises Conflict when it is taken, InvalidInput for labels
    that cannot be.
    """
    at = clock.now()
    row = {
        "id": call_id or clock.new_id(),
        "client_id": client_id,
        "external_id": external_id,
        "title": title,
        "state": state,
        "mode": mode,
        "labels": merged({}, labels or {}),
        "started_at": at,
        "created_at": at,
    }
    made = (
        conn.execute(insert(conn, call).values(row).on_conflict_do_nothing().returning(call)).mappings().one_or_none()
    )
    if made is None:
        raise Conflict("There is a call with this id already; use another id.", call_id=call_id)
    return Call(**made)


def add_track(
    conn: Connection, call_id: str, name: str, speaker: str | None = None, channel: int | None = None
) -> Track:
    """A new track of a call. Raises Conflict when the call has a track of this name."""
    row = {"call_id": call_id, "name": name, "speaker": speaker, "channel": channel}
    made = conn.execute(insert(conn, track).values(row).on_conflict_do_nothing().returning(track)).mappings()
    if (found := made.one_or_none()) is None:
        raise Conflict(f"This call has a track named {name!r} already.", call_id=call_id, track=name)
    return Track(**found)


def open_stream(
    conn: Connection, *, call_id: str, track: str, protocol: str, options: dict[str, Any], offset_s: float = 0.0
) -> Stream:
    """A new open stream for the track named `track`, with an epoch above all that the track had."""
    row = {
        "call_id": call_id,
        "track": track,
        "protocol": protocol,
        "options": options,
        "offset_s": offset_s,
        "epoch": _next_epoch(call_id, track),
    }
    return Stream(**conn.execute(insert_into(stream).values(row).returning(stream)).mappings().one())


def reopen_stream(conn: Connection, stream_id: str) -> Stream:
    """Lease the stream to a successor, under a new epoch; what its last holder still writes loses against it.

    Raises NotFound.
    """
    held = _stream(conn, stream_id)
    return _change_stream(conn, stream_id, state="open", closed_at=None, epoch=_next_epoch(held.call_id, held.track))


def close_stream(conn: Connection, stream_id: str, accepted_samples: int) -> Stream:
    """Close the stream with its final count. Raises NotFound."""
    return _change_stream(conn, stream_id, state="closed", closed_at=clock.now(), accepted_samples=accepted_samples)


def open_streams(conn: Connection) -> list[Stream]:
    """Every open stream, oldest first: after a crash, what has to be taken up again."""
    query = select(stream).where(stream.c.state == "open").order_by(stream.c.opened_at, stream.c.id)
    return [Stream(**row) for row in conn.execute(query).mappings()]


def finish_call(
    conn: Connection, call_id: str, *, state: State, duration_s: float | None, language: str | None
) -> Call:
    """End a call, or move one that has ended on to `state`; the first end stays. None keeps what is known.

    Raises NotFound.
    """
    changed = conn.execute(
        update(call)
        .where(call.c.id == call_id)
        .values(
            state=state,
            ended_at=func.coalesce(call.c.ended_at, clock.now()),
            duration_s=func.coalesce(literal(duration_s, call.c.duration_s.type), call.c.duration_s),
            language=func.coalesce(literal(language, call.c.language.type), call.c.language),
        )
        .returning(call)
    ).mappings()
    if (row := changed.one_or_none()) is None:
        raise NotFound(call_id=call_id)
    return Call(**row, tracks=_tracks(conn, [call_id])[call_id])


def get_call(conn: Connection, call_id: str, client_id: str) -> Call:
    """One call with its tracks. Raises NotFound, for another client's call too."""
    row = conn.execute(select(call).where(call.c.id == call_id, call.c.client_id == client_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(call_id=call_id)
    return Call(**row, tracks=_tracks(conn, [call_id])[call_id])


def get_calls(conn: Connection, call_ids: Collection[str]) -> list[Call]:
    """Those of these calls that are there, of whatever client, with their tracks."""
    tracks = _tracks(conn, call_ids)
    rows = conn.execute(select(call).where(call.c.id.in_(call_ids))).mappings()
    return [Call(**row, tracks=tracks[row["id"]]) for row in rows]


def list_calls(
    conn: Connection,
    client_id: str,
    *,
    external_id: str | None = None,
    state: State | None = None,
    labels: Mapping[str, str] | None = None,
    since: str | None = None,
    until: str | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[Call]:
    """A client's calls with their tracks, newest first; those that have all these `labels` and were made in
    `since` <= time < `until` (RFC 3339 UTC, as `clock.now` writes it). Raises InvalidInput.
    """
    wanted: list[ColumnElement[bool]] = [call.c.client_id == client_id]
    if external_id is not None:
        wanted.append(call.c.external_id == external_id)
    if state is not None:
        wanted.append(call.c.state == state)
    if since is not None:
        wanted.append(call.c.created_at >= since)
    if until is not None:
        wanted.append(call.c.created_at < until)
    require_names(labels or {})  # they become a path into JSON
    wanted += [call.c.labels[name].as_string() == value for name, value in (labels or {}).items()]
    page = newest_first(conn, call, *wanted, cursor=cursor, limit=limit)
    tracks = _tracks(conn, [row["id"] for row in page.data])
    return Page([Call(**row, tracks=tracks[row["id"]]) for row in page.data], page.next)


def _tracks(conn: Connection, call_ids: Iterable[str]) -> dict[str, tuple[Track, ...]]:
    """The tracks of each call, in the order they were added."""
    found: dict[str, tuple[Track, ...]] = dict.fromkeys(call_ids, ())
    for row in conn.execute(select(track).where(track.c.call_id.in_(found)).order_by(track.c.id)).mappings():
        found[row["call_id"]] += (Track(**row),)
    return found


def _next_epoch(call_id: str, track: str) -> ScalarSelect[int]:
    earlier = stream.alias("earlier")
    return (
        select(func.coalesce(func.max(earlier.c.epoch), 0) + 1)
        .where(earlier.c.call_id == call_id, earlier.c.track == track)
        .scalar_subquery()
    )


def _stream(conn: Connection, stream_id: str) -> Stream:
    row = conn.execute(select(stream).where(stream.c.id == stream_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(stream_id=stream_id)
    return Stream(**row)


def _change_stream(conn: Connection, stream_id: str, **values: Any) -> Stream:
    row = conn.execute(update(stream).where(stream.c.id == stream_id).values(**values).returning(stream)).mappings()
    if (changed := row.one_or_none()) is None:
        raise NotFound(stream_id=stream_id)
    return Stream(**changed)
