"""The objects of the marketplace, as they are in the store. They are frozen. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["developer", "publisher", "admin"]
"""What a user may do: use APIs; also publish products and decide on subscriptions; also manage users."""
MemberRole = Literal["member", "owner"]
"""What a member of an organisation may do: use its applications; also manage its members."""
State = Literal["submitted", "active", "suspended", "cancelled", "expired"]
Slot = Literal["primary", "secondary"]
SLOTS: tuple[Slot, ...] = ("primary", "secondary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """A company or a team. Its members share its applications."""

    id: str
    slug: str
    name: str
    created: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person. `issuer` and `subject` identify the person at the OpenID provider, None before the first login.

    `verified` is when an admin or the provider vouched for the address, None if nobody has.
    """

    id: str
    email: str
    name: str
    role: Role
    issuer: str | None
    subject: str | None
    language: str
    created: int
    disabled: int | None
    version: int
    verified: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user as a member of an organisation."""

    organisation: str
    user: str
    role: MemberRole
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A link by which a person becomes a user, and a member of the organisation if there is one.

    `invited_by` is the user who made it, None for the command ``xds portal``.
    """

    id: str
    email: str
    role: str
    organisation: str | None
    created: int
    expires: int
    used: int | None
    invited_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login of a user. `csrf` is the token that every form of the session sends."""

    user: str
    csrf: str
    created: int
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token of the admin API, which does what its user may do within its scopes."""

    id: str
    user: str
    name: str
    scopes: tuple[str, ...]
    created: int
    expires: int | None
    revoked: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductPlan:
    """A plan of a product. `price` is None if it is free of charge."""

    plan: str
    approval: Literal["automatic", "manual"] = "automatic"
    price: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """APIs that are subscribed to together. `visible_to` has slugs of organisations, None if everybody sees it.

    A product of the `source` ``gateway`` is written in the gateway's YAML, and follows it.
    """

    id: str
    slug: str
    source: Literal["gateway", "portal"]
    state: Literal["draft", "published", "retired"]
    title: str
    summary: str
    description: str
    apis: tuple[str, ...]
    plans: tuple[ProductPlan, ...]
    visible_to: tuple[str, ...] | None
    terms: str
    created: int
    version: int

    def plan(self, name: str) -> ProductPlan | None:
        """Return one of its plans, None if it has no such plan."""
        return next((one for one in self.plans if one.plan == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A program of an organisation that calls APIs."""

    id: str
    organisation: str
    slug: str
    name: str
    description: str
    created: int
    deleted: int | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The right of an application to call the APIs of a product on a plan.

    `consumer` is its name in the gateway: in headers, logs and usage. It never changes and is never used again.
    """

    id: str
    application: str
    product: str
    plan: str
    state: State
    consumer: str
    note: str
    requested: int
    decided: int | None
    decided_by: str | None
    started: int | None
    ended: int | None
    expires: int | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One of the two keys of a subscription, as far as the store knows it. `hint` is the end of the key."""

    subscription: str
    slot: Slot
    hint: str
    created: int
    not_after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made. `secret` is the key itself, which is nowhere else."""

    key: Key
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, and what the object was before and after."""

    id: int
    at: int
    actor: str
    action: str
    kind: str
    object: str
    organisation: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a subscription owes for a month (`period`, such as ``2026-11``). It never changes.

    `number` counts all statements. `total` and the amounts of the `lines` are integers in minor units of the `currency`.
    `calls` are the counted calls by plan, and `prices` those of all plans when it was closed, None for one that was free.
    """

    id: str
    number: int
    subscription: str
    period: str
    currency: str
    total: int
    lines: tuple[Mapping[str, Any], ...]
    calls: Mapping[str, Any]
    closed: int
    prices: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """What the subscriptions of a product owe for a month, by currency: the sum of their closed statements, in minor units."""

    period: str
    product: str
    currency: str
    statements: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What publishers announce to everybody, in Markdown. `until` is when it is no longer shown, None for never."""

    id: str
    title: str
    text: str
    created: int
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """A subscription as policy servers need it. `keys` are hashes with `not_after`, 0 for none; empty if no key works."""

    consumer: str
    plan: str
    apis: tuple[str, ...]
    keys: tuple[tuple[bytes, int], ...]
    sequence: int
