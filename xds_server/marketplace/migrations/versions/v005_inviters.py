"""Who made an invitation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "005"
down_revision = "004"

_TABLE, _INDEX = "market_invitations", "market_invitations_organisation"
_FROM_AUDIT_LOG = """
UPDATE market_invitations SET invited_by = (
    SELECT users.id FROM market_users AS users JOIN market_audit AS entry ON entry.actor = users.email
    WHERE entry.kind = 'invitation' AND entry.action = 'create' AND entry.object = market_invitations.id
)
"""


def upgrade() -> None:
    """Add the column. The audit log knows who made the invitations that there are."""
    with op.batch_alter_table(_TABLE) as batch:
        inviter = sa.ForeignKey("market_users.id", name="market_invitations_invited_by")
        batch.add_column(sa.Column("invited_by", sa.String(36), inviter, nullable=True))
    op.execute(_FROM_AUDIT_LOG)
    op.create_index(_INDEX, _TABLE, ["organisation", "id"])


def downgrade() -> None:
    """Remove it."""
    op.drop_index(_INDEX, _TABLE)
    with op.batch_alter_table(_TABLE) as batch:
        batch.drop_constraint("market_invitations_invited_by", type_="foreignkey")
        batch.drop_column("invited_by")
