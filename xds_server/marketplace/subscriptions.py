"""Subscriptions of applications to products, from the request to the end, and their keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select

from xds_server.marketplace import names, products, subscribers
from xds_server.marketplace.actor import CLOCK, not_found
from xds_server.marketplace.errors import Conflict, Forbidden, Invalid
from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.people import one_of
from xds_server.marketplace.records import SLOTS, Application, Key, NewKey, Subscription
from xds_server.marketplace.schema import APPLICATIONS, AUDIT, KEYS, LIVE_STATES, ORGANISATIONS, SUBSCRIPTIONS
from xds_server.marketplace.store import Transaction, Version, columns, made

_APPLICATION, _SUBSCRIPTION, _KEY = (
    columns(Application, APPLICATIONS),
    columns(Subscription, SUBSCRIPTIONS),
    columns(Key, KEYS),
)
_STEPS = {
    "approve": (("submitted",), "active"),
    "reject": (("submitted",), "cancelled"),
    "suspend": (("active",), "suspended"),
    "resume": (("suspended",), "active"),
    "cancel": (LIVE_STATES, "cancelled"),
    "expire": (LIVE_STATES, "expired"),
}
"""What can be done with a subscription: from which states, and to which one."""
PUBLISHERS_STEPS = ("approve", "reject", "suspend", "resume")


def application(transaction: Transaction, id_: str) -> Application:
    """Return an application that is not deleted. Raises NotFound."""
    statement = _APPLICATION.where(APPLICATIONS.c.id == id_, APPLICATIONS.c.deleted.is_(None))
    found = transaction.one(Application, statement, "application")
    transaction.actor.require_sight(found.organisation, "application")
    return found


def subscription(transaction: Transaction, id_: str) -> Subscription:
    """Return a subscription by its identifier or its consumer. Raises NotFound."""
    return _found(transaction, id_, changes=False)[0]


def subscriptions(
    transaction: Transaction,
    *,
    state: str | None = None,
    application_: str | None = None,
    product: str | None = None,
    wanted: Wanted = FIRST,
) -> PageOf[Subscription]:
    """Return the subscriptions that the actor may see, the newest first. Raises Invalid, NotFound."""
    statement = _SUBSCRIPTION
    if state is not None:
        one_of(state, (*LIVE_STATES, "cancelled", "expired"), "state")
        statement = statement.where(SUBSCRIPTIONS.c.state == state)
    if application_ is not None:
        statement = statement.where(SUBSCRIPTIONS.c.application == application(transaction, application_).id)
    elif not transaction.actor.publishes:
        theirs = APPLICATIONS.c.organisation.in_(transaction.actor.organisations)
        statement = statement.where(SUBSCRIPTIONS.c.application.in_(select(APPLICATIONS.c.id).where(theirs)))
    if product is not None:
        statement = statement.where(SUBSCRIPTIONS.c.product == products.product(transaction, product).id)
    return page(transaction, Subscription, statement, SUBSCRIPTIONS.c.id, wanted)


def live(transaction: Transaction, application_: str) -> list[Subscription]:
    """Return the subscriptions of an application that have not ended."""
    where = (SUBSCRIPTIONS.c.application == application_) & SUBSCRIPTIONS.c.state.in_(LIVE_STATES)
    return transaction.all(Subscription, _SUBSCRIPTION.where(where).order_by(SUBSCRIPTIONS.c.id))


def subscribe(
    transaction: Transaction,
    application_: str,
    product: str,
    plan: str,
    *,
    taken: Iterable[str] = (),
    accepts_terms: bool = False,
) -> Subscription:
    """Request a subscription. It is active at once if the plan needs no approval.

    `taken` are the consumers of the gateway's YAML, whose names it never gets. Raises Invalid, NotFound, Forbidden,
    Conflict.
    """
    caller = application(transaction, application_)
    transaction.actor.require_member(caller.organisation, "application")
    wanted = products.product(transaction, product)
    if wanted.state != "published":
        raise Conflict(f"the product '{wanted.slug}' takes no subscriptions now")
    chosen = wanted.plan(plan)
    if chosen is None:
        known = ", ".join(one.plan for one in wanted.plans)
        raise Invalid(f"the product has no such plan; it has {known}", "plan")
    if wanted.terms and not accepts_terms:
        raise Invalid("accept the terms of the product first", "accepts_terms")
    if any(one.product == wanted.id for one in live(transaction, caller.id)):
        raise Conflict(
            "the application has a subscription to this product already; cancel it first, or change its plan"
        )
    automatic = chosen.approval == "automatic" and not _suspended(transaction, caller.organisation, wanted.id)
    id_ = names.new_id()
    values = {
        "id": id_,
        "application": caller.id,
        "product": wanted.id,
        "plan": plan,
        "state": "active" if automatic else "submitted",
        "consumer": _consumer(transaction, caller, wanted.slug, taken),
        "note": "",
        "requested": transaction.now,
        "decided": transaction.now if automatic else None,
        "started": transaction.now if automatic else None,
        "version": 1,
    }
    transaction.add(SUBSCRIPTIONS, "subscription", values, caller.organisation)
    subscribers.refresh(transaction, id_)
    return subscription(transaction, id_)


def _suspended(transaction: Transaction, organisation: str, product: str) -> bool:
    """True if a subscription of the organisation to the product is suspended: then another one needs approval."""
    joined = select(SUBSCRIPTIONS.c.id).join(APPLICATIONS, APPLICATIONS.c.id == SUBSCRIPTIONS.c.application)
    where = (APPLICATIONS.c.organisation == organisation) & (SUBSCRIPTIONS.c.product == product)
    found = transaction.connection.execute(joined.where(where, SUBSCRIPTIONS.c.state == "suspended").limit(1))
    return found.first() is not None


def plans_between(transaction: Transaction, subscription_: Subscription, begin: int, end: int) -> list[str]:
    """Return the plans that a subscription had between two moments (Unix seconds), by its entries of the audit log."""
    statement = select(AUDIT.c.at, AUDIT.c.before, AUDIT.c.after).where(
        AUDIT.c.kind == "subscription", AUDIT.c.object == subscription_.id, AUDIT.c.action == "change_plan"
    )
    changes = transaction.connection.execute(statement.order_by(AUDIT.c.id)).all()
    plan = changes[0].before["plan"] if changes else subscription_.plan
    found = [plan]
    for change in changes:
        if change.at >= end:
            break
        plan = change.after["plan"]
        found = [plan] if change.at < begin else [*found, plan]
    return found


def approve(transaction: Transaction, id_: str, note: str = "", version: Version = None) -> Subscription:
    """Let a submitted subscription begin. Raises NotFound, Forbidden, Conflict, Stale."""
    return _step(transaction, "approve", id_, note, version)


def reject(transaction: Transaction, id_: str, note: str = "", version: Version = None) -> Subscription:
    """End a submitted subscription. The `note` tells the developer why. Raises NotFound, Forbidden, Conflict, Stale."""
    return _step(transaction, "reject", id_, note, version)


def suspend(transaction: Transaction, id_: str, note: str = "", version: Version = None) -> Subscription:
    """Make the keys of an active subscription fail until it is resumed. Raises NotFound, Forbidden, Conflict, Stale."""
    return _step(transaction, "suspend", id_, note, version)


def resume(transaction: Transaction, id_: str, note: str = "", version: Version = None) -> Subscription:
    """Let a suspended subscription go on. Raises NotFound, Forbidden, Conflict, Stale."""
    return _step(transaction, "resume", id_, note, version)


def cancel(transaction: Transaction, id_: str, note: str = "", version: Version = None) -> Subscription:
    """End a subscription. Its keys stop to work, and are forgotten. Raises NotFound, Forbidden, Conflict, Stale."""
    return _step(transaction, "cancel", id_, note, version)


def change_plan(transaction: Transaction, id_: str, plan: str, version: Version = None) -> Subscription:
    """Go on with another plan of the product. One that needs approval is for publishers.

    Raises Invalid, NotFound, Forbidden, Conflict, Stale.
    """
    before, organisation = _found(transaction, id_)
    transaction.actor.require_member(organisation, "subscription")
    if before.state not in LIVE_STATES:
        raise Conflict(f"the subscription is {before.state}; make a new one")
    product = products.named(transaction, before.product)
    chosen = product.plan(plan) if product is not None else None
    if chosen is None:
        raise Invalid("the product has no such plan", "plan")
    if chosen.approval == "manual" and not transaction.actor.decides:
        raise Forbidden("this plan needs approval; cancel the subscription and request one on this plan")
    change = {"plan": plan}
    transaction.change(
        SUBSCRIPTIONS,
        "subscription",
        before,
        change,
        action="change_plan",
        version=version,
        organisation=organisation,
    )
    subscribers.refresh(transaction, before.id)
    return subscription(transaction, before.id)


def set_expiry(
    transaction: Transaction, id_: str, expires: int | None, version: Version = None
) -> Subscription:
    """Let a subscription end at a moment, or never. Raises Invalid, NotFound, Forbidden, Conflict, Stale."""
    transaction.actor.require_publisher()
    before, organisation = _found(transaction, id_)
    if before.state not in LIVE_STATES:
        raise Conflict(f"the subscription is {before.state}; make a new one")
    if expires is not None:
        remedy = "write a moment in the future, or cancel the subscription"
        names.future(expires, transaction.now, "expires", remedy)
    change = {"expires": expires}
    transaction.change(
        SUBSCRIPTIONS,
        "subscription",
        before,
        change,
        action="set_expiry",
        version=version,
        organisation=organisation,
    )
    subscribers.refresh(transaction, before.id)
    return subscription(transaction, before.id)


def expire(transaction: Transaction) -> int:
    """End the subscriptions whose time has come. Policy servers reject their keys since that moment. Returns their number."""
    assert transaction.actor is CLOCK
    # Not the column itself, so that SQLite uses the index of moments: that of states leads to all live subscriptions.
    state = SUBSCRIPTIONS.c.state.concat("")
    where = (SUBSCRIPTIONS.c.expires <= transaction.now) & state.in_(LIVE_STATES)
    due = list(transaction.connection.execute(select(SUBSCRIPTIONS.c.id).where(where)).scalars())
    for one in due:
        _step(transaction, "expire", one, "", None)
    return len(due)


def keys(transaction: Transaction, id_: str) -> list[Key]:
    """Return what is known of the keys of a subscription. Raises NotFound."""
    found = subscription(transaction, id_)
    return transaction.all(Key, _KEY.where(KEYS.c.subscription == found.id).order_by(KEYS.c.slot))


def all_keys(transaction: Transaction, application_: str) -> dict[str, dict[str, Key]]:
    """Return what is known of the keys of an application, by subscription and slot. Raises NotFound."""
    of = select(SUBSCRIPTIONS.c.id).where(
        SUBSCRIPTIONS.c.application == application(transaction, application_).id
    )
    found: dict[str, dict[str, Key]] = {}
    for key in transaction.all(Key, _KEY.where(KEYS.c.subscription.in_(of))):
        found.setdefault(key.subscription, {})[key.slot] = key
    return found


def consumers(transaction: Transaction) -> list[str]:
    """Return the consumers of all subscriptions of the actor's organisations, also of those that have ended."""
    theirs = APPLICATIONS.c.organisation.in_(transaction.actor.organisations)
    statement = select(SUBSCRIPTIONS.c.consumer).join(APPLICATIONS).where(theirs)
    return list(transaction.connection.execute(statement.order_by(SUBSCRIPTIONS.c.consumer)).scalars())


def make_key(transaction: Transaction, id_: str, slot: str, not_after: int | None = None) -> NewKey:
    """Make the primary or the secondary key of a subscription. The one before it stops to work; the other slot stays.

    `not_after` is the moment at which it stops to work. Raises Invalid, NotFound, Forbidden, Conflict.
    """
    found, organisation = _for_keys(transaction, id_)
    one_of(slot, SLOTS, "slot")
    if not_after is not None:
        names.future(not_after, transaction.now, "not_after")
    secret = names.new_secret(names.KEY_PREFIX)
    _drop(transaction, found.id, slot)
    values = {"subscription": found.id, "slot": slot, "hint": secret[-4:], "not_after": not_after}
    row = {**values, "sha256": names.digest(secret), "created": transaction.now}
    transaction.connection.execute(KEYS.insert().values(**row))
    transaction.audit("make", "key", found.id, organisation, after=values)
    subscribers.refresh(transaction, found.id)
    return NewKey(key=made(Key, row), secret=secret)


def revoke_key(transaction: Transaction, id_: str, slot: str) -> None:
    """Make a key stop to work. Publishers may do that too. Raises Invalid, NotFound, Forbidden."""
    found, organisation = _found(transaction, id_)
    transaction.actor.require_member_or_decider(organisation, "subscription")
    one_of(slot, SLOTS, "slot")
    if not _drop(transaction, found.id, slot):
        raise not_found("key")
    transaction.audit("revoke", "key", found.id, organisation, before={"slot": slot})
    subscribers.refresh(transaction, found.id)


def _drop(transaction: Transaction, subscription_: str, slot: str) -> bool:
    where = (KEYS.c.subscription == subscription_) & (KEYS.c.slot == slot)
    return transaction.connection.execute(KEYS.delete().where(where)).rowcount > 0


def _for_keys(transaction: Transaction, id_: str) -> tuple[Subscription, str]:
    found, organisation = _found(transaction, id_)
    transaction.actor.require_member(organisation, "subscription")
    if found.state not in LIVE_STATES:
        raise Conflict(f"the subscription is {found.state}; make a new one")
    return found, organisation


def _found(transaction: Transaction, id_: str, *, changes: bool = True) -> tuple[Subscription, str]:
    """Return a subscription with the organisation that it belongs to. Raises NotFound.

    If the transaction `changes` it, no other one can until this one ends.
    """
    joined = select(*_SUBSCRIPTION.selected_columns, APPLICATIONS.c.organisation).join(
        APPLICATIONS, APPLICATIONS.c.id == SUBSCRIPTIONS.c.application
    )
    where = (SUBSCRIPTIONS.c.id == id_) | (SUBSCRIPTIONS.c.consumer == id_)
    statement = joined.where(where)
    if changes:
        statement = statement.with_for_update(of=SUBSCRIPTIONS)
    row: Any = transaction.connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise not_found("subscription")
    transaction.actor.require_sight(row["organisation"], "subscription")
    return made(Subscription, row), str(row["organisation"])


def _step(transaction: Transaction, action: str, id_: str, note: str, version: Version) -> Subscription:
    before, organisation = _found(transaction, id_)
    if action in PUBLISHERS_STEPS:
        transaction.actor.require_publisher()
    else:
        transaction.actor.require_member_or_decider(organisation, "subscription")
        if before.state == "suspended" and not transaction.actor.decides:
            raise Conflict("the subscription is suspended; ask a publisher to resume or to end it")
    states, after = _STEPS[action]
    if before.state not in states:
        raise Conflict(
            f"the subscription is {before.state}; {action} is possible if it is {' or '.join(states)}"
        )
    change: dict[str, Any] = {"state": after, "note": names.text(note, "note", 2000)}
    if action in ("approve", "reject"):
        change |= {"decided": transaction.now, "decided_by": transaction.actor.user or None}
    if action == "approve":
        change["started"] = transaction.now
    if after in ("cancelled", "expired"):
        change["ended"] = transaction.now
        transaction.connection.execute(KEYS.delete().where(KEYS.c.subscription == before.id))
    transaction.change(
        SUBSCRIPTIONS,
        "subscription",
        before,
        change,
        action=action,
        version=version,
        organisation=organisation,
    )
    subscribers.refresh(transaction, before.id)
    return subscription(transaction, before.id)


def _consumer(transaction: Transaction, caller: Application, product: str, taken: Iterable[str]) -> str:
    """Return a name that no consumer has or had: those of organisation, application and product, and a number if needed."""
    owner = select(ORGANISATIONS.c.slug).where(ORGANISATIONS.c.id == caller.organisation)
    name = f"{transaction.connection.execute(owner).scalar_one()}.{caller.slug}.{product}"
    similar = select(SUBSCRIPTIONS.c.consumer).where(
        SUBSCRIPTIONS.c.consumer.startswith(name, autoescape=True)
    )
    used = {*transaction.connection.execute(similar).scalars(), *taken}
    numbered = (f"{name}-{number}" for number in range(2, len(used) + 3))
    return name if name not in used else next(one for one in numbered if one not in used)
