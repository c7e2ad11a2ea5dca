"""Counts of requests by how long they took. Requests that were counted before have none."""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "003"
down_revision = "002"

_TABLES = ("usage_hours", "usage_days")
_COLUMNS = (
    *(f"to_{bound}ms" for bound in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)),
    "over_10000ms",
)


def upgrade() -> None:
    """Add the columns."""
    for table in _TABLES:
        for name in _COLUMNS:
            op.add_column(
                table, sqlalchemy.Column(name, sqlalchemy.BigInteger, nullable=False, server_default="0")
            )


def downgrade() -> None:
    """Remove the columns."""
    for table in _TABLES:
        for name in _COLUMNS:
            op.drop_column(table, name)
