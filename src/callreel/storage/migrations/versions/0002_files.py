"""Files to transcripts: ranked jobs, edits, full text, webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from callreel.storage.fulltext import indexed

revision = "0002"
down_revision = "0001"

# What a migration that rebuilds transcript_line has to make again: the triggers go with the table.
FULL_TEXT = (
    "CREATE VIRTUAL TABLE transcript_fts USING fts5("
    "text, content='transcript_line', content_rowid='id', tokenize='unicode61 remove_diacritics 2')",
    "CREATE TRIGGER transcript_line_added AFTER INSERT ON transcript_line BEGIN "
    "INSERT INTO transcript_fts(rowid, text) VALUES (new.id, new.text); END",
    "CREATE TRIGGER transcript_line_gone AFTER DELETE ON transcript_line BEGIN "
    "INSERT INTO transcript_fts(transcript_fts, rowid, text) VALUES ('delete', old.id, old.text); END",
    "CREATE TRIGGER transcript_line_changed AFTER UPDATE ON transcript_line BEGIN "
    "INSERT INTO transcript_fts(transcript_fts, rowid, text) VALUES ('delete', old.id, old.text); "
    "INSERT INTO transcript_fts(rowid, text) VALUES (new.id, new.text); END",
)
AGEING_S = {"high": 0.0, "normal": 600.0, "low": 1800.0}  # how much younger a job of each priority counts
BACKFILL_ROWS = 1000


def upgrade() -> None:
    _jobs()
    _transcripts()
    _webhooks()
    op.create_index(None, "call", ["created_at"])
    op.drop_index("ix_call_client_id_external_id", "call")
    op.create_index(None, "call", ["client_id", "external_id", "created_at", "id"])


def _jobs() -> None:
    op.drop_index("ix_job_state_priority_created_at", "job")
    op.add_column("job", sa.Column("rank_at", sa.Float))
    op.add_column("job", sa.Column("idempotency_key", sa.Text))
    op.add_column("job", sa.Column("cache_key", sa.Text))
    sqlite = op.get_context().dialect.name == "sqlite"
    born = "CAST(strftime('%s', created_at) AS REAL)" if sqlite else "extract(epoch FROM created_at::timestamptz)"
    for priority, ageing_s in AGEING_S.items():
        op.execute(f"UPDATE job SET rank_at = {born} + {ageing_s} WHERE priority = '{priority}'")
    with op.batch_alter_table("job") as job:
        job.alter_column("rank_at", existing_type=sa.Float, nullable=False)
    op.create_index(None, "job", ["state", "kind", "rank_at", "id"])
    op.create_index(None, "job", ["state", "kind", "finished_at"])
    op.create_index(None, "job", ["client_id", "idempotency_key"], unique=True)
    op.create_index(None, "job", ["client_id", "cache_key"])
    op.create_index(None, "job", ["call_id", "created_at", "id"])
    op.create_index(None, "job", ["finished_at"])


def _transcripts() -> None:
    key = ["transcript_id", "track", "seq"]
    op.create_table(
        "edit",
        sa.Column("transcript_id", sa.Text, primary_key=True),
        sa.Column("track", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text),
        sa.Column("words", sa.JSON),
        sa.Column("speaker", sa.Text),
        sa.Column("client_id", sa.Text, sa.ForeignKey("client.id"), nullable=False),
        sa.Column("edited_at", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(key, [f"segment.{name}" for name in key], ondelete="CASCADE"),
    )
    lines = op.create_table(
        "transcript_line",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("transcript_id", sa.Text, nullable=False),
        sa.Column("track", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(key, [f"segment.{name}" for name in key], ondelete="CASCADE"),
        sa.UniqueConstraint(*key),
    )
    if op.get_context().dialect.name == "sqlite":
        for statement in FULL_TEXT:
            op.execute(statement)
    if not context.is_offline_mode():  # a script for another database cannot read that database
        _fill(op.get_bind(), lines)


def _fill(conn: sa.Connection, lines: sa.Table) -> None:
    """A line for each segment that is there already."""
    segments = conn.exec_driver_sql("SELECT transcript_id, track, seq, text FROM segment")
    for rows in segments.partitions(BACKFILL_ROWS):
        conn.execute(lines.insert(), [{**row._mapping, "text": indexed(row.text)} for row in rows])


def _webhooks() -> None:
    op.create_table(
        "webhook",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("client_id", sa.Text, sa.ForeignKey("client.id"), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("events", sa.JSON, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_index(None, "webhook", ["client_id", "created_at", "id"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, sa.ForeignKey("webhook.id", ondelete="CASCADE"), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("next_at", sa.Float, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Text),
    )
    op.create_index(None, "delivery", ["state", "next_at"])
    op.create_index(None, "delivery", ["webhook_id", "created_at", "id"])
    op.create_index(None, "delivery", ["ended_at"])


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.drop_table("transcript_fts")
    for table in ("delivery", "webhook", "transcript_line", "edit"):
        op.drop_table(table)
    op.drop_index("ix_call_created_at", "call")
    op.drop_index("ix_call_client_id_external_id_created_at_id", "call")
    op.create_index(None, "call", ["client_id", "external_id"])
    for columns in ("state_kind_rank_at_id", "state_kind_finished_at", "client_id_idempotency_key"):
        op.drop_index(f"ix_job_{columns}", "job")
    for columns in ("client_id_cache_key", "call_id_created_at_id", "finished_at"):
        op.drop_index(f"ix_job_{columns}", "job")
    with op.batch_alter_table("job") as job:
        for column in ("cache_key", "idempotency_key", "rank_at"):
            job.drop_column(column)
    op.create_index(None, "job", ["state", "priority", "created_at"])
