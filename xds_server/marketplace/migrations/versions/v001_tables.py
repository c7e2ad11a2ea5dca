"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "001"
down_revision = None


def upgrade() -> None:
    """Create the tables, and make the audit log a table to which rows are only added."""
    _people()
    _products()
    _followers()
    _only_add("market_audit")
    op.execute("INSERT INTO market_counters (name, value) VALUES ('subscribers', 0)")


def downgrade() -> None:
    """Remove the tables."""
    for table in _TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION market_only_add()")


def _people() -> None:
    op.create_table(
        "market_organisations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slug"),
    )
    op.create_table(
        "market_users",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=True),
        sa.Column("subject", sa.String(length=255), nullable=True),
        sa.Column("language", sa.String(length=8), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("disabled", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
    )
    op.create_index("market_users_subject", "market_users", ["issuer", "subject"], unique=True)
    op.create_table(
        "market_invitations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column(
            "token", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of the token in the link"
        ),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("organisation", sa.String(length=36), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organisation"],
            ["market_organisations.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token"),
    )
    op.create_table(
        "market_members",
        sa.Column("organisation", sa.String(length=36), nullable=False),
        sa.Column("user", sa.String(length=36), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation"],
            ["market_organisations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["user"],
            ["market_users.id"],
        ),
        sa.PrimaryKeyConstraint("organisation", "user"),
    )
    op.create_index("market_members_user", "market_members", ["user"], unique=False)
    op.create_table(
        "market_sessions",
        sa.Column(
            "token", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of the token in the cookie"
        ),
        sa.Column("user", sa.String(length=36), nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user"],
            ["market_users.id"],
        ),
        sa.PrimaryKeyConstraint("token"),
    )
    op.create_index("market_sessions_user", "market_sessions", ["user"], unique=False)
    op.create_table(
        "market_tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("token", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of the token"),
        sa.Column("user", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("scopes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user"],
            ["market_users.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token"),
    )
    op.create_index("market_tokens_user", "market_tokens", ["user"], unique=False)


def _products() -> None:
    op.create_table(
        "market_products",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("apis", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("plans", sa.JSON(none_as_null=True), nullable=False),
        sa.Column(
            "visible_to",
            sa.JSON(none_as_null=True),
            nullable=True,
            comment="slugs of organisations; null: everybody",
        ),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slug"),
    )
    op.create_table(
        "market_applications",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organisation", sa.String(length=36), nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation"],
            ["market_organisations.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("market_applications_slug", "market_applications", ["organisation", "slug"], unique=True)
    op.create_table(
        "market_subscriptions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("application", sa.String(length=36), nullable=False),
        sa.Column("product", sa.String(length=36), nullable=False),
        sa.Column("plan", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("consumer", sa.String(length=255), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("requested", sa.BigInteger(), nullable=False),
        sa.Column("decided", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.String(length=36), nullable=True),
        sa.Column("started", sa.BigInteger(), nullable=True),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["application"],
            ["market_applications.id"],
        ),
        sa.ForeignKeyConstraint(
            ["decided_by"],
            ["market_users.id"],
        ),
        sa.ForeignKeyConstraint(
            ["product"],
            ["market_products.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("consumer"),
    )
    op.create_index("market_subscriptions_application", "market_subscriptions", ["application"], unique=False)
    op.create_index(
        "market_subscriptions_live",
        "market_subscriptions",
        ["application", "product"],
        unique=True,
        sqlite_where=sa.text("state IN ('submitted', 'active', 'suspended')"),
        postgresql_where=sa.text("state IN ('submitted', 'active', 'suspended')"),
    )
    op.create_index(
        "market_subscriptions_product", "market_subscriptions", ["product", "state"], unique=False
    )
    op.create_index(
        "market_subscriptions_state", "market_subscriptions", ["state", "requested"], unique=False
    )
    op.create_table(
        "market_keys",
        sa.Column("subscription", sa.String(length=36), nullable=False),
        sa.Column("slot", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hint", sa.String(length=16), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["subscription"],
            ["market_subscriptions.id"],
        ),
        sa.PrimaryKeyConstraint("subscription", "slot"),
        sa.UniqueConstraint("sha256"),
    )


def _followers() -> None:
    op.create_table(
        "market_audit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=320), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("object", sa.String(length=36), nullable=False),
        sa.Column("organisation", sa.String(length=36), nullable=True),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("after", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("market_audit_object", "market_audit", ["kind", "object"], unique=False)
    op.create_index("market_audit_organisation", "market_audit", ["organisation", "id"], unique=False)
    op.create_table(
        "market_counters",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "market_subscribers",
        sa.Column("consumer", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("plan", sa.String(length=255), nullable=False),
        sa.Column("apis", sa.JSON(none_as_null=True), nullable=False),
        sa.Column(
            "keys",
            sa.JSON(none_as_null=True),
            nullable=True,
            comment="[[SHA-256 in hexadecimal, not_after or 0], …]; null: none works",
        ),
        sa.PrimaryKeyConstraint("consumer"),
    )
    op.create_index("market_subscribers_sequence", "market_subscribers", ["sequence"], unique=True)


def _only_add(table: str) -> None:
    """Let the database reject updates and deletions, whoever asks for them."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION market_only_add() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'rows are only added to this table'; END$$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_only_add BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION market_only_add()"
        )
        return
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'rows are only added to this table'); END"
        )


_TABLES = (
    "market_subscribers",
    "market_counters",
    "market_audit",
    "market_keys",
    "market_subscriptions",
    "market_applications",
    "market_products",
    "market_tokens",
    "market_sessions",
    "market_members",
    "market_invitations",
    "market_users",
    "market_organisations",
)
