"""The tables of the marketplace. The migrations make them, and a test compares both.

Identifiers are UUIDs of version 7 as texts. Times are Unix seconds. A `version` counts the changes of a row, so that two
people cannot overwrite each other's changes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

REVISION = "006"
"""The revision of the tables: the newest file in migrations/versions."""
METADATA = MetaData()
_JSON = JSON(none_as_null=True)
LIVE_STATES = ("submitted", "active", "suspended")
"""States of subscriptions that have not ended. An application has at most one such subscription to a product."""


def _id() -> Column[str]:
    return Column("id", String(36), primary_key=True)


def _refers(name: str, table: str, *, nullable: bool = False, primary: bool = False) -> Column[Any]:
    reference = ForeignKey(f"market_{table}.id")
    return Column(name, String(36), reference, nullable=nullable and not primary, primary_key=primary)


def _text(name: str, length: int = 255, *, unique: bool = False) -> Column[str]:
    return Column(name, String(length), nullable=False, unique=unique)


def _text_key(name: str, length: int = 255) -> Column[str]:
    return Column(name, String(length), primary_key=True)


def _number(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


ORGANISATIONS = Table(
    "market_organisations",
    METADATA,
    _id(),
    _text("slug", 63, unique=True),
    _text("name"),
    _number("created"),
    _number("version"),
)
USERS = Table(
    "market_users",
    METADATA,
    _id(),
    _text("email", 320, unique=True),
    _text("name"),
    _text("role", 16),
    Column("issuer", String(255)),
    Column("subject", String(255)),
    _text("language", 8),
    _number("created"),
    _number("disabled", nullable=True),
    _number("version"),
    _number("verified", nullable=True),
    Index("market_users_subject", "issuer", "subject", unique=True),
)
MEMBERS = Table(
    "market_members",
    METADATA,
    _refers("organisation", "organisations", primary=True),
    _refers("user", "users", primary=True),
    _text("role", 16),
    _number("created"),
    Index("market_members_user", "user"),
)
INVITATIONS = Table(
    "market_invitations",
    METADATA,
    _id(),
    Column("token", LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the token in the link"),
    _text("email", 320),
    _text("role", 16),
    _refers("organisation", "organisations", nullable=True),
    _number("created"),
    _number("expires"),
    _number("used", nullable=True),
    _refers("invited_by", "users", nullable=True),
    Index("market_invitations_organisation", "organisation", "id"),
)
SESSIONS = Table(
    "market_sessions",
    METADATA,
    Column("token", LargeBinary(32), primary_key=True, comment="SHA-256 of the token in the cookie"),
    _refers("user", "users"),
    _text("csrf", 64),
    _number("created"),
    _number("seen"),
    Index("market_sessions_user", "user"),
)
TOKENS = Table(
    "market_tokens",
    METADATA,
    _id(),
    Column("token", LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the token"),
    _refers("user", "users"),
    _text("name"),
    Column("scopes", _JSON, nullable=False),
    _number("created"),
    _number("expires", nullable=True),
    _number("revoked", nullable=True),
    Index("market_tokens_user", "user"),
)
PRODUCTS = Table(
    "market_products",
    METADATA,
    _id(),
    _text("slug", 63, unique=True),
    _text("source", 16),
    _text("state", 16),
    _text("title"),
    Column("summary", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("apis", _JSON, nullable=False),
    Column("plans", _JSON, nullable=False),
    Column("visible_to", _JSON, nullable=True, comment="slugs of organisations; null: everybody"),
    Column("terms", Text, nullable=False),
    _number("created"),
    _number("version"),
)
APPLICATIONS = Table(
    "market_applications",
    METADATA,
    _id(),
    _refers("organisation", "organisations"),
    _text("slug", 63),
    _text("name"),
    Column("description", Text, nullable=False),
    _number("created"),
    _number("deleted", nullable=True),
    _number("version"),
    Index("market_applications_slug", "organisation", "slug", unique=True),
)
SUBSCRIPTIONS = Table(
    "market_subscriptions",
    METADATA,
    _id(),
    _refers("application", "applications"),
    _refers("product", "products"),
    _text("plan"),
    _text("state", 16),
    _text("consumer", unique=True),
    Column("note", Text, nullable=False),
    _number("requested"),
    _number("decided", nullable=True),
    _refers("decided_by", "users", nullable=True),
    _number("started", nullable=True),
    _number("ended", nullable=True),
    _number("expires", nullable=True),
    _number("version"),
    Index("market_subscriptions_application", "application"),
    Index("market_subscriptions_product", "product", "state"),
    Index("market_subscriptions_state", "state", "id"),
)
Index(
    "market_subscriptions_expires",
    SUBSCRIPTIONS.c.expires,
    sqlite_where=SUBSCRIPTIONS.c.expires.is_not(None),
    postgresql_where=SUBSCRIPTIONS.c.expires.is_not(None),
)
Index(
    "market_subscriptions_live",
    SUBSCRIPTIONS.c.application,
    SUBSCRIPTIONS.c.product,
    unique=True,
    sqlite_where=SUBSCRIPTIONS.c.state.in_(LIVE_STATES),
    postgresql_where=SUBSCRIPTIONS.c.state.in_(LIVE_STATES),
)
KEYS = Table(
    "market_keys",
    METADATA,
    _refers("subscription", "subscriptions", primary=True),
    Column("slot", String(16), primary_key=True),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    _text("hint", 16),
    _number("created"),
    _number("not_after", nullable=True),
)
SUBSCRIBERS = Table(
    "market_subscribers",
    METADATA,
    Column("consumer", String(255), primary_key=True),
    _number("sequence"),
    _text("plan"),
    Column("apis", _JSON, nullable=False),
    Column(
        "keys",
        _JSON,
        nullable=True,
        comment="[[SHA-256 in hexadecimal, not_after or 0], …]; null: none works",
    ),
    Index("market_subscribers_sequence", "sequence", unique=True),
)
"""What policy servers need of each subscription, in the order of the changes. It changes in the same transaction."""
COUNTERS = Table(
    "market_counters",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""`subscribers` is the sequence of the last change of a subscriber."""
AUDIT = Table(
    "market_audit",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    _number("at"),
    _text("actor", 320),
    _text("action", 64),
    _text("kind", 32),
    _text("object", 36),
    Column("organisation", String(36)),
    Column("before", _JSON),
    Column("after", _JSON),
    Index("market_audit_object", "kind", "object"),
    Index("market_audit_organisation", "organisation", "id"),
)
"""Rows are only added: a trigger rejects every other change."""
STATEMENTS = Table(
    "market_statements",
    METADATA,
    _id(),
    Column(
        "number", BigInteger, nullable=False, unique=True, comment="without gaps, in the order of closing"
    ),
    _refers("subscription", "subscriptions"),
    _text("period", 7),
    _text("currency", 3),
    _number("total"),
    Column("lines", _JSON, nullable=False),
    Column("calls", _JSON, nullable=False, comment="counted calls by plan"),
    _number("closed"),
    Column("prices", _JSON, nullable=False, server_default="{}"),
    Index("market_statements_period", "subscription", "period", unique=True),
)
"""Closed statements. Rows are only added: a trigger rejects every other change. Amounts are minor units."""
MONTHS_WITHOUT = Table(
    "market_months_without",
    METADATA,
    Column("subscription", String(36), ForeignKey("market_subscriptions.id"), primary_key=True),
    _text_key("period", 7),
)
"""Closed months of subscriptions in which nothing was due, so that there is no statement."""
NOTICES = Table(
    "market_notices",
    METADATA,
    _id(),
    _text("title"),
    Column("text", Text, nullable=False),
    _number("created"),
    _number("until", nullable=True),
)
EXPORTS = Table(
    "market_exports",
    METADATA,
    _text_key("target", 64),
    _text_key("consumer"),
    _text_key("plan"),
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="hours since 1970 in UTC"),
    _number("sent"),
    _number("pending", nullable=True),
    Index("market_exports_pending", "target", "pending"),
)
"""How many calls of an hour a target has. `pending` is the number that it has after what is being sent now."""
