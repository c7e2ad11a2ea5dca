"""When somebody vouched for the address of a user."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "006"
down_revision = "005"


def upgrade() -> None:
    """Add the column. The OpenID provider has verified the addresses of those who have logged in there."""
    op.add_column("market_users", sa.Column("verified", sa.BigInteger, nullable=True))
    op.execute("UPDATE market_users SET verified = created WHERE subject IS NOT NULL")


def downgrade() -> None:
    """Remove it."""
    op.drop_column("market_users", "verified")
