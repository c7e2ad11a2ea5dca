"""Plans that months which are not closed yet need for their statements, although no subscription has them any more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, union_all

from xds_server.marketplace.schema import AUDIT, MONTHS_WITHOUT, STATEMENTS, SUBSCRIPTIONS
from xds_server.marketplace.store import Transaction

LONGEST = 100 * 86_400
"""Seconds after which a plan is no longer looked for: the portal closes the last three months."""


def plans(transaction: Transaction, product: str) -> dict[str, str]:
    """Return the plans that subscriptions to a product had lately, each with a month of them that is not closed."""
    since = transaction.now - LONGEST
    theirs = SUBSCRIPTIONS.c.product == product
    ended = select(SUBSCRIPTIONS.c.id, SUBSCRIPTIONS.c.plan, SUBSCRIPTIONS.c.ended).where(
        theirs, SUBSCRIPTIONS.c.ended >= since, SUBSCRIPTIONS.c.started.is_not(None)
    )
    had = [(row.id, row.plan, _month(row.ended)) for row in transaction.connection.execute(ended)]
    changes = select(AUDIT.c.object, AUDIT.c.before, AUDIT.c.at).where(
        AUDIT.c.kind == "subscription",
        AUDIT.c.action == "change_plan",
        AUDIT.c.at >= since,
        AUDIT.c.object.in_(select(SUBSCRIPTIONS.c.id).where(theirs)),
    )
    had += [
        (row.object, row.before["plan"], _month(row.at)) for row in transaction.connection.execute(changes)
    ]
    if not had:
        return {}
    closed = {tuple(row) for row in transaction.connection.execute(_closed(theirs, _month(since)))}
    return {plan: month for subscription, plan, month in had if (subscription, month) not in closed}


def _closed(theirs: Any, since: str) -> Any:
    """The months from `since` on that are closed, by subscription."""
    tables = [
        select(table.c.subscription, table.c.period)
        .join(SUBSCRIPTIONS, SUBSCRIPTIONS.c.id == table.c.subscription)
        .where(theirs, table.c.period >= since)
        for table in (STATEMENTS, MONTHS_WITHOUT)
    ]
    return union_all(*tables)


def _month(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m")
