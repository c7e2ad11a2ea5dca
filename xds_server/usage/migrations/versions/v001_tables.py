"""The first tables."""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    column, text, number = sqlalchemy.Column, sqlalchemy.String, sqlalchemy.BigInteger
    op.create_table(
        "usage_hours",
        column("hour", number, primary_key=True, autoincrement=False, comment="hours since 1970 in UTC"),
        column("consumer", text(255), primary_key=True),
        column("plan", text(255), primary_key=True),
        column("route", text(255), primary_key=True),
        column("status", sqlalchemy.SmallInteger, primary_key=True, autoincrement=False),
        column("requests", number, nullable=False),
        column("bytes_received", number, nullable=False),
        column("bytes_sent", number, nullable=False),
        column("duration_ms", number, nullable=False),
        sqlite_with_rowid=False,  # one B-tree and not two
    )
    op.create_table(
        "usage_batches",
        column("batch", sqlalchemy.LargeBinary(16), primary_key=True),
        column("arrival", number, nullable=False, comment="Unix seconds"),
    )
    op.create_index("usage_batches_arrival", "usage_batches", ["arrival"])
    op.create_table(
        "usage_spools",
        column("spool", text(64), primary_key=True),
        column("segment", number, nullable=False),
        column("position", number, nullable=False, comment="bytes of the segment that are counted"),
    )


def downgrade() -> None:
    """Remove the tables."""
    for table in ("usage_spools", "usage_batches", "usage_hours"):
        op.drop_table(table)
