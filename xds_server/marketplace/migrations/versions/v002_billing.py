"""Statements, what was exported, and notices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "002"
down_revision = "001"


def upgrade() -> None:
    """Create the tables. Statements are only added, as entries of the audit log are."""
    op.create_table(
        "market_statements",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column(
            "number",
            sa.BigInteger,
            nullable=False,
            unique=True,
            comment="without gaps, in the order of closing",
        ),
        sa.Column("subscription", sa.String(36), sa.ForeignKey("market_subscriptions.id"), nullable=False),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("lines", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("calls", sa.JSON(none_as_null=True), nullable=False, comment="counted calls by plan"),
        sa.Column("closed", sa.BigInteger, nullable=False),
    )
    op.create_index("market_statements_period", "market_statements", ["subscription", "period"], unique=True)
    op.create_table(
        "market_notices",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=True),
    )
    op.create_table(
        "market_exports",
        sa.Column("target", sa.String(64), primary_key=True),
        sa.Column("consumer", sa.String(255), primary_key=True),
        sa.Column("plan", sa.String(255), primary_key=True),
        sa.Column(
            "hour",
            sa.BigInteger,
            primary_key=True,
            autoincrement=False,
            comment="hours since 1970 in UTC",
        ),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("pending", sa.BigInteger, nullable=True),
    )
    op.create_index("market_exports_pending", "market_exports", ["target", "pending"])
    op.execute("INSERT INTO market_counters (name, value) VALUES ('statements', 0)")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER market_statements_only_add BEFORE UPDATE OR DELETE OR TRUNCATE ON market_statements "
            "FOR EACH STATEMENT EXECUTE FUNCTION market_only_add()"
        )
        return
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER market_statements_no_{event.lower()} BEFORE {event} ON market_statements "
            "BEGIN SELECT RAISE(ABORT, 'rows are only added to this table'); END"
        )


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("market_exports")
    op.drop_table("market_notices")
    op.drop_table("market_statements")
    op.execute("DELETE FROM market_counters WHERE name = 'statements'")
