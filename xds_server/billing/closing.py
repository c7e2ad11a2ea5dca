"""Closing months: statements from the counts of the usage store, and corrections of what came late."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xds_server.billing import months
from xds_server.billing.amounts import Line, cost, of_calls
from xds_server.gateway.model.products import Price
from xds_server.marketplace import prices, products, statements, subscriptions
from xds_server.marketplace.actor import CLOCK
from xds_server.marketplace.errors import Conflict
from xds_server.marketplace.records import Product, Statement, Subscription
from xds_server.marketplace.store import Marketplace, Transaction

SETTLED = 2 * 3600
"""Seconds after the end of a month until it can be closed. An Envoy sends an entry for at most an hour."""

Counted = Callable[[str, int, int], Mapping[tuple[str, int], int]]
"""The counts of the usage store of a consumer between two moments (Unix seconds, at full hours): calls by plan and status."""


Prices = Mapping[str, Mapping[str, Any] | None]
"""Prices by plan, as `marketplace.prices.checked` makes them; None for a plan that is free of charge."""
_FREE = Price(currency="XXX")
_CORRECTED = 3
"""Earlier months that are looked at."""

log = logging.getLogger("xds.billing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What closing a month did. `failed` tells why the month of a subscription could not be closed."""

    statements: list[Statement]
    failed: list[str]


def close_month(marketplace: Marketplace, counted: Counted, period: str, now: float) -> Closed:
    """Close the month for each subscription, one transaction each, so that it can be killed and repeated.

    Calls that were counted after an earlier month was closed are corrections in this one. A subscription that owes nothing
    has no statement, and its month is closed all the same. Raises Conflict if the month has not settled yet, Invalid,
    DatabaseFailed.
    """
    months.checked(period)
    end = months.end(period)
    if now < end + SETTLED:
        raise Conflict(f"calls of {period} can arrive until two hours after its end; close it then", "period")
    with marketplace.read(CLOCK) as transaction:
        ended_since = months.begin(period) - _CORRECTED * 31 * 86_400  # they may have calls that came late
        due = statements.owing(transaction, period, ended_since, end)
    closed: list[Statement] = []
    failed: list[str] = []
    for one in due:
        begun = time.monotonic()
        try:
            with marketplace.begin(CLOCK) as transaction:
                made = _close(transaction, one, counted, period)
        except Conflict as error:
            failed.append(str(error))
            continue
        if made is not None:
            closed.append(made)
        # SQLite has one writer, and those that wait look for the lock now and then: leave it free for as long
        time.sleep(time.monotonic() - begun)
    return Closed(statements=closed, failed=failed)


def prices_of(product: Product) -> Prices:
    """Return the prices that a product has now."""
    return {one.plan: one.price for one in product.plans}


def counted_calls(offered: Prices, counts: Mapping[tuple[str, int], int]) -> dict[str, int]:
    """Return the calls that count by plan. Without a price, the statuses of a price without `statuses` count."""
    rules = {plan: _FREE if one is None else prices.as_price(one) for plan, one in offered.items()}
    found: dict[str, int] = {}
    for (plan, status), number in counts.items():
        if plan in rules and rules[plan].counts(status):
            found[plan] = found.get(plan, 0) + number
    return found


def _close(
    transaction: Transaction, subscription: Subscription, counted: Counted, period: str
) -> Statement | None:
    product = products.named(transaction, subscription.product)
    assert product is not None, "a product with subscriptions is never deleted"
    offered = prices_of(product)
    priced = _priced(offered)
    calls = counted_calls(offered, counted(subscription.consumer, months.begin(period), months.end(period)))
    lines: list[Line] = []
    plan = _dearest(transaction, subscription, priced, period)
    if plan is not None and priced[plan].monthly:
        lines.append(Line(kind="monthly", plan=plan, amount=priced[plan].monthly))
    for plan, number in sorted(calls.items()):
        if plan in priced:
            lines += of_calls(priced[plan], plan, number)
    earlier = statements.of_subscription(transaction, subscription.id)
    currency = _currency(priced, earlier)
    lines += _corrections(subscription, earlier, offered, currency, counted, period)
    if not lines and not (priced and _active(subscription, period)):
        statements.nothing_due(transaction, subscription, period)
        return None
    return statements.add(
        transaction,
        subscription,
        period,
        currency,
        [one.as_json() for one in lines],
        calls,
        offered,
    )


def _priced(offered: Prices) -> dict[str, Price]:
    return {plan: prices.as_price(one) for plan, one in offered.items() if one is not None}


def _currency(priced: Mapping[str, Price], earlier: Sequence[Statement]) -> str:
    """Return the currency of a product, that of the last statement if it has become free of charge."""
    currencies = (*(one.currency for one in priced.values()), *(one.currency for one in reversed(earlier)))
    return currencies[0] if currencies else ""


def _active(subscription: Subscription, period: str) -> bool:
    ended = subscription.ended
    return ended is None or ended >= months.begin(period)


def _dearest(
    transaction: Transaction, subscription: Subscription, priced: Mapping[str, Price], period: str
) -> str | None:
    """Return the plan with the largest monthly amount among those that the subscription had in a month, None for none."""
    if not _active(subscription, period):
        return None
    had = subscriptions.plans_between(transaction, subscription, months.begin(period), months.end(period))
    return max((one for one in had if one in priced), key=lambda one: priced[one].monthly, default=None)


def _corrections(
    subscription: Subscription,
    earlier: Sequence[Statement],
    offered: Prices,
    currency: str,
    counted: Counted,
    period: str,
) -> list[Line]:
    """Return a line for each earlier month and plan whose calls are not those of all statements so far.

    They cost what they would have cost in the statement of their month.
    """
    known = _billed(earlier)
    lines: list[Line] = []
    for one in [one for one in earlier if one.period < period][-_CORRECTED:]:
        then = one.prices or offered
        priced = _priced(then)
        counts = counted(subscription.consumer, months.begin(one.period), months.end(one.period))
        for plan, number in sorted(counted_calls(then, counts).items()):
            change = number - known.get((one.period, plan), 0)
            if not change or plan not in priced:
                continue
            if one.currency != currency:
                text = "calls of a month in another currency are not billed consumer=%s period=%s plan=%s calls=%d"
                log.warning(text, subscription.consumer, one.period, plan, change)
                continue
            amount = cost(priced[plan], number) - cost(priced[plan], number - change)
            lines.append(Line(kind="correction", plan=plan, calls=change, amount=amount, period=one.period))
    return lines


def _billed(earlier: Sequence[Statement]) -> dict[tuple[str, str], int]:
    """Return the calls by month and plan that statements have, corrections included."""
    found: dict[tuple[str, str], int] = {}
    for one in earlier:
        for plan, number in one.calls.items():
            found[one.period, plan] = found.get((one.period, plan), 0) + number
        for line in one.lines:
            if line["kind"] == "correction":
                key = line["period"], line["plan"]
                found[key] = found.get(key, 0) + line["calls"]
    return found
