"""The tables, in SQLAlchemy Core: one definition for SQLite and PostgreSQL.

Ids are UUIDv7 text (`clock.new_id`) and `*_at` columns RFC 3339 text (`clock.now`), so both sort by time as they are.
The migrations build these tables step by step; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from callreel import clock

metadata = MetaData(
    # Every constraint has a name, so that a migration can find it again.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Json = JSON(none_as_null=True)  # None is SQL NULL, never the JSON text "null"


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True, default=clock.new_id)


def _created_at() -> Column[str]:
    return Column("created_at", Text, nullable=False, default=clock.now)


def _client_id() -> Column[str]:
    return Column("client_id", Text, ForeignKey("client.id"), nullable=False)


def _call_id() -> Column[str]:
    return Column("call_id", Text, ForeignKey("call.id", ondelete="CASCADE"), nullable=False)


def _of_segment() -> tuple[ForeignKeyConstraint, ...]:
    """The row goes with the segment whose key it carries."""
    key = ("transcript_id", "track", "seq")
    return (ForeignKeyConstraint(key, [f"segment.{name}" for name in key], ondelete="CASCADE"),)


client = Table(
    "client",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),  # admin | user
    Column("key_hash", Text, unique=True),
    _created_at(),
)

call = Table(
    "call",
    metadata,
    _id(),
    _client_id(),
    Column("external_id", Text),
    Column("title", Text, nullable=False, default=""),
    Column("state", Text, nullable=False),  # live | processing | done | failed
    Column("mode", Text, nullable=False),
    Column("started_at", Text),
    Column("ended_at", Text),
    Column("duration_s", Float),
    Column("language", Text),
    Column("speakers", Json, nullable=False, default=dict),  # label -> name
    Column("labels", Json, nullable=False, default=dict),
    _created_at(),
    Index(None, "client_id", "created_at", "id"),
    Index(None, "client_id", "external_id", "created_at", "id"),
    Index(None, "created_at"),
)

track = Table(
    "track",
    metadata,
    _id(),
    _call_id(),
    Column("name", Text, nullable=False),
    Column("speaker", Text),
    Column("channel", Integer),
    UniqueConstraint("call_id", "name"),
)

stream = Table(
    "stream",
    metadata,
    _id(),
    _call_id(),
    Column("track", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("offset_s", Float, nullable=False),
    Column("accepted_samples", BigInteger, nullable=False, default=0),
    Column("state", Text, nullable=False, default="open"),  # open | closed
    Column("options", Json, nullable=False),
    Column("opened_at", Text, nullable=False, default=clock.now),
    Column("closed_at", Text),
    Index(None, "state"),
    Index(None, "call_id", "track"),
)

transcript = Table(
    "transcript",
    metadata,
    _id(),
    _call_id(),
    Column("pass", Text, nullable=False, key="pass_"),  # live | final
    Column("language", Text),
    Column("engine", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False, default="running"),  # running | done | failed
    Column("job_id", Text),
    Column("current", Boolean, nullable=False, default=False),
    Column("warnings", Json, nullable=False, default=list),
    _created_at(),
    Index(None, "call_id"),
)

segment = Table(
    "segment",
    metadata,
    Column("transcript_id", Text, ForeignKey("transcript.id", ondelete="CASCADE"), primary_key=True),
    Column("track", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("start", Float, nullable=False),
    Column("end", Float, nullable=False),
    Column("text", Text, nullable=False),
    Column("speaker", Text),
    Column("language", Text),
    Column("words", Json, nullable=False),
    Column("decode", Json, nullable=False),
)

edit = Table(  # what a person made of a segment; the segment itself stays as the engine wrote it
    "edit",
    metadata,
    Column("transcript_id", Text, primary_key=True),
    Column("track", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("text", Text),  # None: the engine's
    Column("words", Json),  # with text, None with it
    Column("speaker", Text),  # None: the engine's; "": nobody
    _client_id(),  # who edited
    Column("edited_at", Text, nullable=False, default=clock.now),
    *_of_segment(),
)

transcript_line = Table(  # the text of a segment, edited or not, as the full-text index takes it (storage.fulltext)
    "transcript_line",
    metadata,
    # A column of its own for what the index calls a row: VACUUM may give rows without one new numbers.
    Column("id", Integer, primary_key=True),
    Column("transcript_id", Text, nullable=False),
    Column("track", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("text", Text, nullable=False),
    *_of_segment(),
    UniqueConstraint("transcript_id", "track", "seq"),
)

job = Table(
    "job",
    metadata,
    _id(),
    _client_id(),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, default="queued"),  # queued | running | succeeded | failed | cancelled
    Column("priority", Text, nullable=False),  # high | normal | low
    Column("rank_at", Float, nullable=False),  # seconds since the epoch; the lowest is claimed first
    Column("attempts", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False, default=3),
    Column("lease_until", Float),  # seconds since the epoch; set while running
    Column("not_before", Float, nullable=False, default=0.0),  # seconds since the epoch
    Column("params", Json, nullable=False),
    Column("progress", Json, nullable=False, default=dict),
    Column("call_id", Text),
    Column("idempotency_key", Text),  # chosen by the client, once for one job
    Column("cache_key", Text),  # two jobs with one key have one result
    Column("result", Json),
    Column("error", Json),
    Column("usage", Json),
    _created_at(),
    Column("started_at", Text),
    Column("finished_at", Text),
    Index(None, "state", "kind", "rank_at", "id"),
    Index(None, "state", "kind", "finished_at"),
    Index(None, "client_id", "created_at", "id"),
    Index(None, "client_id", "idempotency_key", unique=True),
    Index(None, "client_id", "cache_key"),
    Index(None, "call_id", "created_at", "id"),
    Index(None, "finished_at"),
)

webhook = Table(
    "webhook",
    metadata,
    _id(),
    _client_id(),
    Column("url", Text, nullable=False),
    Column("events", Json, nullable=False),  # types of events, as "job"
    Column("secret", Text, nullable=False),  # signs what is delivered
    Column("state", Text, nullable=False, default="active"),  # active | paused
    _created_at(),
    Index(None, "client_id", "created_at", "id"),
)

delivery = Table(
    "delivery",
    metadata,
    _id(),
    Column("webhook_id", Text, ForeignKey("webhook.id", ondelete="CASCADE"), nullable=False),
    Column("event", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("state", Text, nullable=False, default="pending"),  # pending | sending | delivered | failed
    Column("attempts", Integer, nullable=False, default=0),
    Column("status", Integer),  # of the last answer, None when there was none
    Column("error", Text),
    Column("next_at", Float, nullable=False),  # seconds since the epoch
    _created_at(),
    Column("ended_at", Text),
    Index(None, "state", "next_at"),
    Index(None, "webhook_id", "created_at", "id"),
    Index(None, "ended_at"),
)
