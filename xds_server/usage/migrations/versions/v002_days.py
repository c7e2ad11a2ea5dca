"""Sums by day, made from those by hour."""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "002"
down_revision = "001"


def upgrade() -> None:
    """Create the table, and fill it."""
    column, text, number = sqlalchemy.Column, sqlalchemy.String, sqlalchemy.BigInteger
    op.create_table(
        "usage_days",
        column("consumer", text(255), primary_key=True),
        column(
            "day",
            number,
            primary_key=True,
            autoincrement=False,
            comment="the first hour of a day in UTC, in hours since 1970",
        ),
        column("plan", text(255), primary_key=True),
        column("route", text(255), primary_key=True),
        column("status", sqlalchemy.SmallInteger, primary_key=True, autoincrement=False),
        column("requests", number, nullable=False),
        column("bytes_received", number, nullable=False),
        column("bytes_sent", number, nullable=False),
        column("duration_ms", number, nullable=False),
        sqlite_with_rowid=False,  # one B-tree and not two
    )
    op.execute(
        "INSERT INTO usage_days SELECT consumer, hour - hour % 24, plan, route, status, sum(requests), "
        "sum(bytes_received), sum(bytes_sent), sum(duration_ms) FROM usage_hours GROUP BY 1, 2, 3, 4, 5"
    )


def downgrade() -> None:
    """Remove the table. The sums by hour have all that it has."""
    op.drop_table("usage_days")
