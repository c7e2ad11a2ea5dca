"""Closing months: statements from the counts of the usage store, and corrections of what came late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What closing a month did. `nothing_due` is the number of subscriptions that owe nothing."""

    statements: list[Statement]
    nothing_due: int


def close_month(marketplace: Marketplace, counted: Counted, period: str, now: float) -> Closed:
    """Close the statements of a month, one transaction each, so that it can be killed and repeated.

    Calls that were counted after an earlier month was closed are corrections in this one. Raises Conflict if the month
    has not settled yet, Invalid, DatabaseFailed.
    """
    months.checked(period)
    end = months.end(period)
    if now < end + SETTLED:
        raise Conflict(f"calls of {period} can arrive until two hours after its end; close it then", "period")
    with marketplace.read(CLOCK) as transaction:
        ended_since = months.begin(period) - _CORRECTED * 31 * 86_400  # they may have calls that came late
        due = statements.owing(transaction, period, ended_since, end)
    closed: list[Statement] = []
    without = 0
    for one in due:
        with marketplace.begin(CLOCK) as transaction:
            made = _close(transaction, one, counted, period)
        if made is None:
            without += 1
        else:
            closed.append(made)
    return Closed(statements=closed, nothing_due=without)


def _close(
    transaction: Transaction, subscription: Subscription, counted: Counted, period: str
) -> Statement | None:
    product = products.named(transaction, subscription.product)
    assert product is not None, "a product with subscriptions is never deleted"
    offered = {one.plan: prices.as_price(one.price) for one in product.plans if one.price is not None}
    if not offered:
        return None
    currency = next(iter(offered.values())).currency
    calls = counted_calls(product, counted(subscription.consumer, months.begin(period), months.end(period)))
    lines: list[Line] = []
    plan = _dearest(transaction, subscription, offered, period)
    if plan is not None and offered[plan].monthly:
        lines.append(Line(kind="monthly", plan=plan, amount=offered[plan].monthly))
    for plan, number in sorted(calls.items()):
        if plan in offered:
            lines += of_calls(offered[plan], plan, number)
    lines += _corrections(transaction, subscription, product, offered, counted, period)
    if not lines and not _active(subscription, period):
        return None  # it had ended, and nothing came late
    return statements.add(
        transaction, subscription, period, currency, [one.as_json() for one in lines], calls
    )


def _active(subscription: Subscription, period: str) -> bool:
    ended = subscription.ended
    return ended is None or ended >= months.begin(period)


def _dearest(
    transaction: Transaction, subscription: Subscription, offered: Mapping[str, Price], period: str
) -> str | None:
    """Return the plan with the largest monthly amount among those that the subscription had in a month, None for none."""
    if not _active(subscription, period):
        return None
    had = subscriptions.plans_between(transaction, subscription, months.begin(period), months.end(period))
    return max((one for one in had if one in offered), key=lambda one: offered[one].monthly, default=None)


def counted_calls(product: Product, counts: Mapping[tuple[str, int], int]) -> dict[str, int]:
    """Return the calls that count by plan. Without a price, the statuses of a price without `statuses` count."""
    found: dict[str, int] = {}
    for (plan, status), number in counts.items():
        known = product.plan(plan)
        if known is None:
            continue
        price = prices.as_price(known.price) if known.price is not None else _FREE
        if price.counts(status):
            found[plan] = found.get(plan, 0) + number
    return found


_FREE = Price(currency="XXX")


def _corrections(
    transaction: Transaction,
    subscription: Subscription,
    product: Product,
    offered: Mapping[str, Price],
    counted: Counted,
    period: str,
) -> list[Line]:
    """Return a line for each earlier month and plan whose calls are not those of its statement and earlier corrections."""
    earlier = statements.earlier(transaction, subscription.id, period)
    known: dict[tuple[str, str], int] = {}
    for one in earlier:
        for plan, number in one.calls.items():
            known[one.period, plan] = known.get((one.period, plan), 0) + number
        for line in one.lines:
            if line["kind"] == "correction":
                key = line["period"], line["plan"]
                known[key] = known.get(key, 0) + line["calls"]
    lines = []
    for month in [one.period for one in earlier][-_CORRECTED:]:
        counts = counted(subscription.consumer, months.begin(month), months.end(month))
        for plan, number in sorted(counted_calls(product, counts).items()):
            before = known.get((month, plan), 0)
            if number != before and plan in offered:
                amount = cost(offered[plan], number) - cost(offered[plan], before)
                lines.append(
                    Line(kind="correction", plan=plan, calls=number - before, amount=amount, period=month)
                )
    return lines


_CORRECTED = 3
"""Earlier months that are looked at."""
