"""The prices of each statement, and months in which a subscription owed nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "004"
down_revision = "003"


def upgrade() -> None:
    """Add both. The statements that there are have no prices."""
    prices = sa.Column("prices", sa.JSON(none_as_null=True), nullable=False, server_default="{}")
    op.add_column("market_statements", prices)
    op.create_table(
        "market_months_without",
        sa.Column("subscription", sa.String(36), sa.ForeignKey("market_subscriptions.id"), primary_key=True),
        sa.Column("period", sa.String(7), primary_key=True),
    )


def downgrade() -> None:
    """Remove both."""
    op.drop_table("market_months_without")
    op.drop_column("market_statements", "prices")
