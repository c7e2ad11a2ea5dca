"""Indexes for lists of subscriptions by their state, the newest first, and for those whose time has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "003"
down_revision = "002"

_STATE, _EXPIRES, _TABLE = (
    "market_subscriptions_state",
    "market_subscriptions_expires",
    "market_subscriptions",
)


def upgrade() -> None:
    """Order subscriptions of a state by their identifiers, and find those that end."""
    op.drop_index(_STATE, _TABLE)
    op.create_index(_STATE, _TABLE, ["state", "id"])
    ends = sa.text("expires IS NOT NULL")
    op.create_index(_EXPIRES, _TABLE, ["expires"], sqlite_where=ends, postgresql_where=ends)


def downgrade() -> None:
    """Go back to the order by the time of the request."""
    op.drop_index(_EXPIRES, _TABLE)
    op.drop_index(_STATE, _TABLE)
    op.create_index(_STATE, _TABLE, ["state", "requested"])
