"""The spine: clients, calls with their tracks and streams, transcripts with their segments, jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "client",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("key_hash", sa.Text, unique=True),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_table(
        "call",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("client_id", sa.Text, sa.ForeignKey("client.id"), nullable=False),
        sa.Column("external_id", sa.Text),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text),
        sa.Column("ended_at", sa.Text),
        sa.Column("duration_s", sa.Float),
        sa.Column("language", sa.Text),
        sa.Column("speakers", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_index(None, "call", ["client_id", "created_at", "id"])
    op.create_index(None, "call", ["client_id", "external_id"])
    op.create_table(
        "track",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("call_id", sa.Text, sa.ForeignKey("call.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("speaker", sa.Text),
        sa.Column("channel", sa.Integer),
        sa.UniqueConstraint("call_id", "name"),
    )
    op.create_table(
        "stream",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("call_id", sa.Text, sa.ForeignKey("call.id", ondelete="CASCADE"), nullable=False),
        sa.Column("track", sa.Text, nullable=False),
        sa.Column("protocol", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("offset_s", sa.Float, nullable=False),
        sa.Column("accepted_samples", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("opened_at", sa.Text, nullable=False),
        sa.Column("closed_at", sa.Text),
    )
    op.create_index(None, "stream", ["state"])
    op.create_index(None, "stream", ["call_id", "track"])
    op.create_table(
        "transcript",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("call_id", sa.Text, sa.ForeignKey("call.id", ondelete="CASCADE"), nullable=False),
        sa.Column("pass", sa.Text, nullable=False),
        sa.Column("language", sa.Text),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("current", sa.Boolean, nullable=False),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_index(None, "transcript", ["call_id"])
    op.create_table(
        "segment",
        sa.Column("transcript_id", sa.Text, sa.ForeignKey("transcript.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("track", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("start", sa.Float, nullable=False),
        sa.Column("end", sa.Float, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("speaker", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("words", sa.JSON, nullable=False),
        sa.Column("decode", sa.JSON, nullable=False),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("client_id", sa.Text, sa.ForeignKey("client.id"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("priority", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Float),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("call_id", sa.Text),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("usage", sa.JSON),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text),
        sa.Column("finished_at", sa.Text),
    )
    op.create_index(None, "job", ["state", "priority", "created_at"])
    op.create_index(None, "job", ["client_id", "created_at", "id"])


def downgrade() -> None:
    for table in ("job", "segment", "transcript", "stream", "track", "call", "client"):
        op.drop_table(table)
