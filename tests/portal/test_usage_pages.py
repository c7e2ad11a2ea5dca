"""The pages of usage: whose calls they show, and that they add up."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema_rs
import pytest

from tests.support.market import Market
from tests.support.shop_portal import ShopPortal, shop_portal
from xds_server.marketplace import applications, logins, statements
from xds_server.marketplace.actor import CLOCK
from xds_server.usage.rollup import Counted
from xds_server.usage.spool import Position
from xds_server.usage.store import Store

HOUR = int(time.time()) // 3600


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/usage.db")
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def shop(market: Market, tmp_path: Path, usage: Store) -> Iterator[ShopPortal]:
    with shop_portal(market, tmp_path / "gateway", usage=usage) as served:
        yield served


def _count(usage: Store, calls: dict[tuple[int, str, str], int]) -> None:
    sums = {
        (hour, consumer, "free", "orders", status): [number, 1, 2, 3 * number, 0, 0, number, *[0] * 11]
        for (hour, consumer, status), number in calls.items()
    }
    usage.add("s", Position(0, 0), Position(1, 1), (), Counted(sums, 0, frozenset(), 0), HOUR * 3600)


def _calls(page: str, name: str) -> list[str]:
    """Return the numbers of a row of the page."""
    found = re.search(rf'<th scope="row">{re.escape(name)}</th>(.*?)</tr>', page)
    return re.findall(r'class="number">([^<]*)<', found[1]) if found else []


def test_developers_see_their_calls_and_publishers_all(
    shop: ShopPortal, market: Market, usage: Store
) -> None:
    application = market.application()
    mine = market.subscribe(application, market.product(slug="commerce")).consumer
    _count(
        usage,
        {
            (HOUR, mine, "200"): 7,
            (HOUR - 1, mine, "404"): 1,
            (HOUR - 80 * 24, mine, "200"): 100,
            (HOUR, "other.app.shop", "200"): 1000,
        },
    )
    page = shop.as_("ada").get("/usage").text
    assert _calls(page, mine) == ["8", "1", "6", "4", "5"]
    assert "other.app.shop" not in page
    assert _calls(shop.as_("ada").get("/usage?days=90").text, mine)[:2] == ["108", "1"]
    for name in ("Orders", "free", "acme.mobile"):
        assert _calls(shop.as_("ada").get("/usage?days=90").text, name)[:2] == ["108", "1"], name
    assert "other.app.shop" in shop.as_("pub").get("/usage").text
    assert mine not in shop.as_("eve").get("/usage").text
    rows = list(csv.DictReader(io.StringIO(shop.as_("ada").get("/usage.csv?days=90").text)))
    assert sum(int(row["requests"]) for row in rows) == 108
    assert {row["p99_ms"] for row in rows} == {"5"}
    assert {row["consumer"] for row in rows} == {mine}
    every = list(csv.DictReader(io.StringIO(shop.as_("pub").get("/usage.csv?days=90").text)))
    assert sum(int(row["requests"]) for row in every) == 1108


def test_the_api_tells_usage_too(shop: ShopPortal, market: Market, usage: Store) -> None:
    market.clock.now = time.time()
    mine = market.subscribe(market.application(), market.product(slug="commerce")).consumer
    _count(usage, {(HOUR, mine, "200"): 7, (HOUR, mine, "404"): 1, (HOUR, "other.app.shop", "200"): 1000})

    def asked(name: str, query: str) -> httpx.Response:
        with market.store.begin(market.actor(name)) as now:
            _, token = logins.add_token(now, "test", ["read"])
        return httpx.get(f"{shop.address}/api/v1/usage{query}", headers={"authorization": f"Bearer {token}"})

    by_consumer = asked("ada", "?by=consumer").json()
    assert [(row["consumer"], row["status"], row["requests"]) for row in by_consumer] == [
        (mine, 200, 7),
        (mine, 404, 1),
    ]
    assert [(row["p50_ms"], row["p99_ms"]) for row in by_consumer] == [(4, 5)] * 2
    assert sum(row["requests"] for row in asked("pub", "?by=plan&days=2").json()) == 1008
    assert [row["day"][:10] for row in asked("ada", "").json()] == [
        time.strftime("%Y-%m-%d", time.gmtime())
    ] * 2
    assert asked("eve", "?by=route").json() == []
    assert asked("ada", "?by=hour").status_code == 422
    document = httpx.get(f"{shop.address}/api/v1/openapi.json").json()
    schema = {"$ref": "#/components/schemas/UsageList", "components": document["components"]}
    jsonschema_rs.validator_for(schema).validate(by_consumer)


def test_calls_of_a_deleted_application_stay(shop: ShopPortal, market: Market, usage: Store) -> None:
    application = market.application()
    mine = market.subscribe(application, market.product(slug="commerce")).consumer
    _count(usage, {(HOUR, mine, "200"): 7})
    with market.store.begin(market.actor("ada")) as now:
        applications.delete_application(now, application.id)
    assert _calls(shop.as_("ada").get("/usage").text, mine)[:1] == ["7"]


def test_publishers_see_the_revenue_and_who_belongs_to_which_organisation(
    shop: ShopPortal, market: Market
) -> None:
    assert "There are no invoices yet." in shop.as_("pub").get("/manage/revenue").text
    subscription = market.subscribe(market.application(), market.product(slug="commerce"))
    with market.store.begin(CLOCK) as now:
        for period, amount in (("2026-10", 2900), ("2026-11", 120_000)):
            line = {"kind": "monthly", "plan": "free", "amount": amount}
            statements.add(now, subscription, period, "EUR", [line], {}, {})
    page = shop.as_("pub").get("/manage/revenue").text
    assert _calls(page, "2026-11") == ["EUR 1,200.00"]
    assert _calls(page, "2026-10") == ["EUR 29.00"]
    with market.store.begin(market.actor("pub")) as now:
        _, token = logins.add_token(now, "test", ["publish"])
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.get(f"{shop.address}/api/v1/revenue?months=1", headers=headers).json()
    assert answer == [
        {"period": "2026-11", "product": "commerce", "currency": "EUR", "statements": 1, "total": 120_000}
    ]
    users = shop.as_("pub").get("/manage/users").text
    assert re.search(r"<td>ada@example.com</td><td>developer</td><td>acme</td>", users)
