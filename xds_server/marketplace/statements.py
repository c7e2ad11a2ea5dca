"""Statements of subscriptions: added once for each month, and never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import func, or_, select, union_all

from xds_server.marketplace import names, subscriptions
from xds_server.marketplace.actor import not_found
from xds_server.marketplace.errors import Conflict
from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.records import Revenue, Statement, Subscription
from xds_server.marketplace.schema import (
    APPLICATIONS,
    COUNTERS,
    MONTHS_WITHOUT,
    PRODUCTS,
    STATEMENTS,
    SUBSCRIPTIONS,
)
from xds_server.marketplace.store import Transaction, columns

_STATEMENT, _SUBSCRIPTION = columns(Statement, STATEMENTS), columns(Subscription, SUBSCRIPTIONS)
_COUNTER = "statements"
MOST_TOTAL = 2**63 - 1
"""Minor units of the largest statement, which is what the databases have room for."""


def statement(transaction: Transaction, id_: str) -> Statement:
    """Return a statement that the actor may see. Raises NotFound."""
    found = transaction.maybe(Statement, _STATEMENT.where(STATEMENTS.c.id == id_))
    if found is None:
        raise not_found("statement")
    subscriptions.subscription(transaction, found.subscription)
    return found


def statements(
    transaction: Transaction,
    *,
    subscription: str | None = None,
    period: str | None = None,
    wanted: Wanted = FIRST,
) -> PageOf[Statement]:
    """Return the statements that the actor may see, the newest first. Raises NotFound."""
    rows = _STATEMENT
    if subscription is not None:
        found = subscriptions.subscription(transaction, subscription)
        rows = rows.where(STATEMENTS.c.subscription == found.id)
    elif not transaction.actor.publishes:
        theirs = APPLICATIONS.c.organisation.in_(transaction.actor.organisations)
        joined = select(SUBSCRIPTIONS.c.id).join(
            APPLICATIONS, APPLICATIONS.c.id == SUBSCRIPTIONS.c.application
        )
        rows = rows.where(STATEMENTS.c.subscription.in_(joined.where(theirs)))
    if period is not None:
        rows = rows.where(STATEMENTS.c.period == period)
    return page(transaction, Statement, rows, STATEMENTS.c.number, wanted)


def revenue(transaction: Transaction, months: int) -> list[Revenue]:
    """Return the sums of the closed statements of the last months that have some, the newest first, by product and currency.

    Raises Forbidden.
    """
    transaction.actor.require_publisher()
    periods = select(STATEMENTS.c.period).distinct().order_by(STATEMENTS.c.period.desc()).limit(months)
    groups = (STATEMENTS.c.period, PRODUCTS.c.slug, STATEMENTS.c.currency)
    sums = (func.count().label("statements"), func.sum(STATEMENTS.c.total).label("total"))
    rows = (
        select(STATEMENTS.c.period, PRODUCTS.c.slug.label("product"), STATEMENTS.c.currency, *sums)
        .join(SUBSCRIPTIONS, SUBSCRIPTIONS.c.id == STATEMENTS.c.subscription)
        .join(PRODUCTS, PRODUCTS.c.id == SUBSCRIPTIONS.c.product)
        .where(STATEMENTS.c.period.in_(periods.scalar_subquery()))
        .group_by(*groups)
        .order_by(STATEMENTS.c.period.desc(), PRODUCTS.c.slug, STATEMENTS.c.currency)
    )
    return [replace(one, total=int(one.total)) for one in transaction.all(Revenue, rows)]


def owing(transaction: Transaction, period: str, begin: int, end: int) -> list[Subscription]:
    """Return the subscriptions that were active between two moments, in Unix seconds, and whose period is not closed."""
    closed = union_all(
        *(select(one.c.subscription).where(one.c.period == period) for one in (STATEMENTS, MONTHS_WITHOUT))
    )
    active = (SUBSCRIPTIONS.c.started < end) & or_(
        SUBSCRIPTIONS.c.ended.is_(None), SUBSCRIPTIONS.c.ended >= begin
    )
    where = active & SUBSCRIPTIONS.c.id.not_in(closed)
    return transaction.all(Subscription, _SUBSCRIPTION.where(where).order_by(SUBSCRIPTIONS.c.id))


def of_subscription(transaction: Transaction, subscription: str) -> list[Statement]:
    """Return all statements of a subscription, the oldest period first."""
    where = STATEMENTS.c.subscription == subscription
    return transaction.all(Statement, _STATEMENT.where(where).order_by(STATEMENTS.c.period))


def nothing_due(transaction: Transaction, subscription: Subscription, period: str) -> None:
    """Close a month in which a subscription owes nothing, so that later prices do not change that."""
    values = {"subscription": subscription.id, "period": period}
    transaction.connection.execute(MONTHS_WITHOUT.insert().values(**values))


def add(
    transaction: Transaction,
    subscription: Subscription,
    period: str,
    currency: str,
    lines: Iterable[Mapping[str, Any]],
    calls: Mapping[str, int],
    prices: Mapping[str, Any],
) -> Statement:
    """Close the statement of a month. Its number is the next one.

    Raises Conflict if there is one already, or if the store has no room for its amount.
    """
    update = COUNTERS.update().where(COUNTERS.c.name == _COUNTER).values(value=COUNTERS.c.value + 1)
    number = int(transaction.connection.execute(update.returning(COUNTERS.c.value)).scalar_one())
    listed = [dict(one) for one in lines]
    total = sum(one["amount"] for one in listed)
    if abs(total) > MOST_TOTAL:
        raise Conflict(f"the amount of {subscription.consumer}, {total}, is too large; correct the price")
    values = {
        "id": names.new_id(),
        "number": number,
        "subscription": subscription.id,
        "period": period,
        "currency": currency,
        "total": total,
        "lines": listed,
        "calls": dict(calls),
        "closed": transaction.now,
        "prices": dict(prices),
    }
    transaction.connection.execute(STATEMENTS.insert().values(**values))
    shown = {"number": number, "period": period, "total": values["total"]}
    transaction.audit("close", "statement", str(values["id"]), after=shown)
    return transaction.one(Statement, _STATEMENT.where(STATEMENTS.c.id == values["id"]), "statement")
