"""Statements: they are what the usage store has counted, once, and what comes late is a correction."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from tests.support.market import OFFERED, Market
from xds_server.billing import months
from xds_server.billing.closing import SETTLED, close_month
from xds_server.database_url import checked
from xds_server.marketplace import products, statements, subscriptions
from xds_server.marketplace.actor import COMMAND
from xds_server.marketplace.errors import Conflict, Forbidden, NotFound
from xds_server.marketplace.records import Statement, Subscription

PRICE = {"currency": "EUR", "monthly": 2900, "included": 100, "per_call": {"amount": 50, "per": 100}}
PLANS = [{"plan": "free", "price": PRICE}, {"plan": "gold", "price": {**PRICE, "monthly": 9900}}]


class Usage:
    """The counts of a usage store: calls by consumer, month, plan and status."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], dict[tuple[str, int], int]] = {}

    def add(self, consumer: str, month: str, calls: int, *, plan: str = "free", status: int = 200) -> None:
        counts = self.calls.setdefault((consumer, month), {})
        counts[plan, status] = counts.get((plan, status), 0) + calls

    def __call__(self, consumer: str, since: int, until: int) -> dict[tuple[str, int], int]:
        month = months.of(since)
        assert (since, until) == (months.begin(month), months.end(month))
        return self.calls.get((consumer, month), {})


@pytest.fixture
def usage() -> Usage:
    return Usage()


@pytest.fixture
def subscription(market: Market) -> Subscription:
    market.clock.now = months.begin("2026-11") + 86_400
    return market.subscribe(market.application(), market.product(plans=PLANS, terms=""))


def close(market: Market, usage: Usage, period: str = "2026-11") -> list[Statement]:
    market.clock.now = months.end(period) + SETTLED
    return close_month(market.store, usage, period, market.clock.now).statements


def amounts(statement: Statement) -> list[tuple[Any, ...]]:
    return [(line["kind"], line["plan"], line["calls"], line["amount"]) for line in statement.lines]


def test_a_statement_has_the_month_the_included_calls_and_the_others(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    usage.add(subscription.consumer, "2026-11", 300)
    usage.add(subscription.consumer, "2026-11", 50, status=404)
    for status in (401, 403, 429, 500, 503):
        usage.add(subscription.consumer, "2026-11", 1000, status=status)
    (statement,) = close(market, usage)
    assert amounts(statement) == [
        ("monthly", "free", 0, 2900),
        ("included", "free", 100, 0),
        ("calls", "free", 250, 125),
    ]
    assert (statement.number, statement.total, statement.currency, statement.calls) == (
        1,
        3025,
        "EUR",
        {"free": 350},
    )
    assert close(market, usage) == []


def test_a_month_is_closed_after_it_has_settled(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    now = months.end("2026-11") + SETTLED - 1
    with pytest.raises(Conflict, match="two hours after"):
        close_month(market.store, usage, "2026-11", now)
    assert subscription.state == "active"


def test_what_comes_late_is_a_correction_of_the_next_month_once(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    usage.add(subscription.consumer, "2026-11", 300)
    close(market, usage)
    usage.add(subscription.consumer, "2026-11", 200)
    (december,) = close(market, usage, "2026-12")
    correction = december.lines[-1]
    assert amounts(december)[-1] == ("correction", "free", 200, 100)
    assert correction["period"] == "2026-11"
    (january,) = close(market, usage, "2027-01")
    assert amounts(january) == [("monthly", "free", 0, 2900)]


def test_another_plan_within_the_month_has_lines_of_its_own(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.change_plan(now, subscription.id, "gold")
    usage.add(subscription.consumer, "2026-11", 200)
    usage.add(subscription.consumer, "2026-11", 300, plan="gold")
    (statement,) = close(market, usage)
    assert amounts(statement) == [
        ("monthly", "gold", 0, 9900),
        ("included", "free", 100, 0),
        ("calls", "free", 100, 50),
        ("included", "gold", 100, 0),
        ("calls", "gold", 200, 100),
    ]


def test_the_month_costs_what_the_dearest_plan_of_it_costs(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    """A change in the last second, or after the month, makes no difference."""
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.change_plan(now, subscription.id, "gold")
    market.clock.now = months.end("2026-11") - 1
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.change_plan(now, subscription.id, "free")
    market.clock.now = months.end("2026-11") + 60
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.change_plan(now, subscription.id, "gold")
    (november,) = close(market, usage)
    assert amounts(november) == [("monthly", "gold", 0, 9900)]
    (december,) = close(market, usage, "2026-12")
    assert amounts(december) == [("monthly", "gold", 0, 9900)]


def test_late_calls_of_a_subscription_that_has_ended_are_billed(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.cancel(now, subscription.id)
    close(market, usage)
    usage.add(subscription.consumer, "2026-11", 300)
    (december,) = close(market, usage, "2026-12")
    assert amounts(december) == [("correction", "free", 300, 100)]
    assert close(market, usage, "2027-01") == []


def test_only_subscriptions_of_the_month_and_with_a_price_have_statements(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    free = market.subscribe(market.application("Free"), market.product(slug="free", terms=""))
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.cancel(now, subscription.id)
    assert [one.subscription for one in close(market, usage)] == [subscription.id]
    assert close(market, usage, "2026-12") == []
    assert free.state == "active"


def test_a_price_that_comes_later_does_not_bill_closed_months(market: Market, usage: Usage) -> None:
    market.clock.now = months.begin("2026-09") + 86_400
    product = market.product(terms="")
    subscription = market.subscribe(market.application(), product)
    for month in ("2026-10", "2026-11"):
        usage.add(subscription.consumer, month, 1000)
        assert close(market, usage, month) == []
    change(market, product.id, [{"plan": "free", "price": PRICE}, {"plan": "gold"}])
    assert close(market, usage, "2026-11") == []
    usage.add(subscription.consumer, "2026-11", 50)
    (december,) = close(market, usage, "2026-12")
    assert amounts(december) == [("monthly", "free", 0, 2900)]


def test_a_plan_of_a_month_that_is_not_closed_stays_with_its_product(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    usage.add(subscription.consumer, "2026-11", 300)
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.change_plan(now, subscription.id, "gold")
        subscriptions.cancel(now, subscription.id)
    for plan in ("free", "gold"):
        kept = [one for one in PLANS if one["plan"] != plan]
        with pytest.raises(Conflict, match=f"'{plan}' has calls of 2026-11"):
            change(market, subscription.product, kept)
    (november,) = close(market, usage)
    assert november.total == 9900 + 100
    change(market, subscription.product, PLANS[:1])


def test_months_that_are_closed_in_another_order_correct_late_calls_once(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    usage.add(subscription.consumer, "2026-11", 300)
    close(market, usage, "2026-11")
    usage.add(subscription.consumer, "2026-11", 100)
    (january,) = close(market, usage, "2027-01")
    assert amounts(january)[-1] == ("correction", "free", 100, 50)
    (december,) = close(market, usage, "2026-12")
    assert amounts(december) == [("monthly", "free", 0, 2900)]


def test_late_calls_cost_what_their_month_cost(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    usage.add(subscription.consumer, "2026-11", 300)
    usage.add(subscription.consumer, "2026-11", 1000, status=404)
    change(market, subscription.product, [{"plan": "free", "price": {**PRICE, "statuses": ["2xx"]}}])
    (november,) = close(market, usage)
    assert november.total == 3000
    change(market, subscription.product, [{"plan": "free", "price": {**PRICE, "monthly": 0, "per_call": {"amount": 7}}}])  # fmt: skip
    (december,) = close(market, usage, "2026-12")
    assert amounts(december) == []
    usage.add(subscription.consumer, "2026-11", 200)
    (january,) = close(market, usage, "2027-01")
    assert amounts(january) == [("correction", "free", 200, 100)]


def test_a_product_with_subscriptions_keeps_its_currency(market: Market, subscription: Subscription) -> None:
    with pytest.raises(Conflict, match="keeps its currency"):
        change(market, subscription.product, [{"plan": "free", "price": {**PRICE, "currency": "KRW"}}])


def test_an_amount_that_is_too_large_does_not_stop_the_others(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    dear = market.product(slug="dear", plans=[{"plan": "free", "price": {"currency": "EUR", "per_call": {"amount": 10**12}}}], terms="")  # fmt: skip
    much = market.subscribe(market.application("Much"), dear)
    usage.add(much.consumer, "2026-11", 10**8)
    market.clock.now = months.end("2026-11") + SETTLED
    done = close_month(market.store, usage, "2026-11", market.clock.now)
    assert [one.subscription for one in done.statements] == [subscription.id]
    assert [much.consumer in one for one in done.failed] == [True]


def change(market: Market, product: str, plans: list[dict[str, Any]]) -> None:
    with market.store.begin(market.actor("pub")) as now:
        products.change_product(now, product, {"plans": plans}, OFFERED)


def test_a_price_that_changes_later_changes_no_closed_statement(
    market: Market, usage: Usage, subscription: Subscription, url: str
) -> None:
    usage.add(subscription.consumer, "2026-11", 300)
    (before,) = close(market, usage)
    with market.store.begin(market.actor("pub")) as now:
        products.change_product(now, subscription.product, {"plans": [{"plan": "free", "price": {**PRICE, "monthly": 1}}, {"plan": "gold"}]}, OFFERED)  # fmt: skip
    with market.store.read(market.actor("ada")) as now:
        assert statements.statement(now, before.id) == before
        assert [one.total for one in statements.statements(now).items] == [3000]
    with market.store.read(market.actor("eve")) as now:
        assert statements.statements(now).items == []
        with pytest.raises(NotFound):
            statements.statement(now, before.id)
    engine = sqlalchemy.create_engine(checked(url))
    for change in ("UPDATE market_statements SET total = 0", "DELETE FROM market_statements"):
        with pytest.raises(DBAPIError, match="only added"), engine.begin() as connection:
            connection.exec_driver_sql(change)
    engine.dispose()


def test_closing_that_is_killed_goes_on_without_a_gap_in_the_numbers(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    product = market.product(slug="more", plans=PLANS, terms="")
    for number in range(4):
        market.subscribe(market.application(f"App {number}"), product)
    asked: list[str] = []

    def dying(consumer: str, since: int, until: int) -> dict[tuple[str, int], int]:
        asked.append(consumer)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return usage(consumer, since, until)

    now = months.end("2026-11") + SETTLED
    with pytest.raises(KeyboardInterrupt):
        close_month(market.store, dying, "2026-11", now)
    assert len(close(market, usage)) == 3
    with market.store.read(COMMAND) as reading:
        found = statements.statements(reading).items
    assert [one.number for one in found] == [5, 4, 3, 2, 1]
    assert len({one.subscription for one in found}) == 5
    assert subscription.id in {one.subscription for one in found}


def test_revenue_is_the_sum_of_the_statements_by_month_product_and_currency(
    market: Market, usage: Usage, subscription: Subscription
) -> None:
    dollars = market.product(
        slug="dollars", plans=[{"plan": "free", "price": {"currency": "USD", "monthly": 500}}], terms=""
    )
    for name in ("Other", "Third"):
        market.subscribe(market.application(name), dollars)
    usage.add(subscription.consumer, "2026-11", 300)
    for period in ("2026-11", "2026-12"):
        close(market, usage, period)
    with market.store.begin(market.actor("pub")) as now:
        assert [
            (one.period, one.product, one.currency, one.statements, one.total)
            for one in statements.revenue(now, 12)
        ] == [
            ("2026-12", "commerce", "EUR", 1, 2900),
            ("2026-12", "dollars", "USD", 2, 1000),
            ("2026-11", "commerce", "EUR", 1, 3000),
            ("2026-11", "dollars", "USD", 2, 1000),
        ]
        assert {one.period for one in statements.revenue(now, 1)} == {"2026-12"}
    with market.store.begin(market.actor("ada")) as now, pytest.raises(Forbidden):
        statements.revenue(now, 12)
