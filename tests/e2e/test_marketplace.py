"""Keys of the marketplace through the real Envoy: they work, and stop to work, within a moment and without a reload."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.market import OFFERED, Clock, Market
from tests.support.postgres import Postgres
from tests.support.running import Served
from tests.support.wait import wait_for
from xds_server.marketplace import people, products, subscribers, subscriptions
from xds_server.marketplace.actor import COMMAND
from xds_server.marketplace.records import NewKey, Product, Subscription
from xds_server.marketplace.store import Marketplace

WRITTEN = "a key of the YAML"
YAML = f"""
listeners: {{http: {{port: $port, address: 127.0.0.1}}}}
upstreams: {{echo: {{endpoints: ["$echo"]}}}}
plans:
  free: {{rate_limit: 3/hour}}
  gold: {{rate_limit: 1000000/second}}
consumers:
  $consumer: {{plan: gold, api_keys: [{{sha256: {hashlib.sha256(WRITTEN.encode()).hexdigest()}}}]}}
catalog:
  orders: {{title: Orders, routes: [orders, gold-orders]}}
  payments: {{title: Payments, routes: [payments]}}
products:
  commerce: {{title: Commerce, apis: [orders], plans: {{free: {{}}, gold: {{approval: manual}}}}}}
portal: {{url: "http://127.0.0.1:1", gateway: "http://127.0.0.1:$port"}}
policies: {{api_key: true}}
routes:
  orders: {{path: /orders, upstream: echo}}
  gold-orders: {{path: /gold, upstream: echo, policies: {{authorize: {{plans: [gold]}}}}}}
  payments: {{path: /payments, upstream: echo}}
  internal: {{path: /internal, upstream: echo}}
  version: {{path: /version, respond: {{body: "$version"}}, policies: {{api_key: off}}}}
"""


@contextmanager
def opened(url: str) -> Iterator[Market]:
    clock = Clock(time.time())
    store = Marketplace(url, clock)
    store.migrate()
    yield Market(store, clock)
    store.close()


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with opened(f"sqlite:///{tmp_path}/market.db") as made:
        yield made


class Gateway(Served):
    """`xds run` with the marketplace of the test."""

    def __init__(self, root: Path, backend: Backend, store: str = "") -> None:
        where = ("--marketplace", store or f"sqlite:///{root}/market.db")
        super().__init__(root, YAML, *where, echo=backend.address, consumer="acme")
        self.write("1")

    def call(self, path: str, key: str | NewKey) -> httpx.Response:
        return self.get(path, headers={"x-api-key": key if isinstance(key, str) else key.secret})

    def answers(self, path: str, key: str | NewKey, status: int) -> httpx.Response:
        """Wait until a call with a key has this status."""
        seen: list[httpx.Response] = []

        def ask() -> bool:
            seen.append(self.call(path, key))
            return seen[-1].status_code == status

        wait_for(
            ask, lambda: f"{status}, not {seen[-1].status_code} {seen[-1].text}; the log:\n{self.log[-3000:]}"
        )
        return seen[-1]

    def policy_server(self) -> int:
        assert self.process is not None
        listed = ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)]
        lines = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
        return next(int(line.split()[0]) for line in lines if "policy-server" in line)


@pytest.fixture
def gateway(tmp_path: Path, backend: Backend, market: Market) -> Iterator[Gateway]:
    with Gateway(tmp_path, backend) as served:
        served.says("ready http://")
        yield served


def reason(answer: httpx.Response) -> str:
    return answer.headers["x-gateway-reason"]


def subscribed(market: Market, plan: str = "gold", **more: object) -> tuple[Product, Subscription]:
    product = market.product(slug="shop", **more)
    subscription = market.subscribe(market.application(), product, plan)
    return product, subscription


def approve(market: Market, subscription: Subscription) -> None:
    with market.store.begin(market.actor("pub")) as now:
        subscriptions.approve(now, subscription.id)


def test_a_key_from_the_first_call_to_the_last(gateway: Gateway, market: Market) -> None:
    product, subscription = subscribed(market)
    first = market.key(subscription)
    assert gateway.call("/orders", WRITTEN).status_code == 200
    assert reason(gateway.answers("/orders", first, 401)) == "api_key_unknown"
    approve(market, subscription)
    answer = gateway.answers("/orders", first, 200)
    seen = answer.json()["headers"]
    assert (seen["x-consumer"], seen["x-consumer-plan"]) == ("acme.mobile.shop", "gold")
    assert "x-api-key" not in seen
    assert gateway.call("/gold", first).status_code == 200

    second = market.key(subscription, "secondary")
    gateway.answers("/orders", second, 200)
    again = market.key(subscription)
    gateway.answers("/orders", again, 200)
    gateway.answers("/orders", first, 401)
    assert gateway.call("/orders", second).status_code == 200

    with market.store.begin(market.actor("pub")) as now:
        subscriptions.suspend(now, subscription.id)
    gateway.answers("/orders", second, 401)
    with market.store.begin(market.actor("pub")) as now:
        subscriptions.resume(now, subscription.id)
    gateway.answers("/orders", again, 200)
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.cancel(now, subscription.id)
    gateway.answers("/orders", again, 401)
    assert gateway.call("/orders", WRITTEN).status_code == 200
    assert product.slug == "shop"


def test_a_key_works_for_the_apis_of_its_product_only(gateway: Gateway, market: Market) -> None:
    product, subscription = subscribed(market)
    key = market.key(subscription)
    approve(market, subscription)
    gateway.answers("/orders", key, 200)
    for path in ("/payments", "/internal"):
        answer = gateway.call(path, key)
        assert (answer.status_code, reason(answer)) == (403, "api_not_subscribed")
        assert "www-authenticate" not in answer.headers
        assert gateway.call(path, WRITTEN).status_code == 200
    with market.store.begin(market.actor("pub")) as now:
        changed = {"apis": ["payments"]}
        products.change_product(now, product.id, changed, OFFERED)
    gateway.answers("/payments", key, 200)
    assert gateway.call("/orders", key).status_code == 403


def test_the_limits_of_the_plan_hold_and_rejected_calls_do_not_count(
    gateway: Gateway, market: Market
) -> None:
    _, subscription = subscribed(market, "free", plans=[{"plan": "free"}])
    key = market.key(subscription)
    gateway.answers("/gold", key, 403)
    assert reason(gateway.call("/gold", key)) != "api_not_subscribed"
    for _ in range(4):
        assert gateway.call("/payments", key).status_code == 403
    statuses = [gateway.call("/orders", key).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_a_key_ends_at_its_moment_without_a_portal(gateway: Gateway, market: Market) -> None:
    _, subscription = subscribed(market)
    approve(market, subscription)
    key = market.key(subscription, not_after=int(market.clock.now) + 1_000)
    gateway.answers("/orders", key, 200)
    with market.store.begin(COMMAND) as now:
        now.connection.exec_driver_sql(
            "UPDATE market_subscriptions SET expires = 1000000000 WHERE id = ?", (subscription.id,)
        )
        subscribers.refresh(now, subscription.id)
    assert reason(gateway.answers("/orders", key, 401)) == "api_key_expired"


def test_what_was_known_stays_while_the_store_is_away(tmp_path: Path, backend: Backend) -> None:
    with Postgres() as postgres, opened(postgres.url) as market:
        _, subscription = subscribed(market)
        approve(market, subscription)
        key, revoked = market.key(subscription), market.key(subscription, "secondary")
        with Gateway(tmp_path, backend, postgres.url) as gateway:
            gateway.answers("/orders", revoked, 200)
            with market.store.begin(market.actor("ada")) as now:
                subscriptions.revoke_key(now, subscription.id, "secondary")
            gateway.answers("/orders", revoked, 401)
            postgres.kill()
            gateway.says("the marketplace store failed; keys that are known stay")
            assert gateway.call("/orders", key).status_code == 200
            assert gateway.call("/orders", revoked).status_code == 401
            assert gateway.status()["marketplace"]["problem"]
            gateway.write("2")
            gateway.until("2")
            os.kill(gateway.policy_server(), signal.SIGKILL)
            gateway.says("the policy server ended; it is started again")
            gateway.answers("/orders", key, 200)
            assert gateway.call("/orders", revoked).status_code == 401
            postgres.start()
            gateway.says("the marketplace store works again")
            other = market.key(subscription, "secondary")
            gateway.answers("/orders", other, 200)


def test_a_store_that_was_replaced_by_its_backup_is_read_again(
    gateway: Gateway, market: Market, tmp_path: Path
) -> None:
    _, subscription = subscribed(market)
    approve(market, subscription)
    key = market.key(subscription)
    gateway.answers("/orders", key, 200)
    with sqlite3.connect(tmp_path / "market.db") as source, sqlite3.connect(tmp_path / "backup") as backup:
        source.backup(backup)
    later = market.key(subscription, "secondary")
    gateway.answers("/orders", later, 200)
    market.store.close()
    for name in ("market.db-wal", "market.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "backup").replace(tmp_path / "market.db")
    gateway.answers("/orders", later, 401)
    assert gateway.call("/orders", key).status_code == 200
    gateway.says("the marketplace store is older than before; all subscriptions are read again")


def test_keys_are_unavailable_and_not_unknown_until_the_store_has_been_read(
    tmp_path: Path, backend: Backend, market: Market
) -> None:
    _, subscription = subscribed(market)
    approve(market, subscription)
    key = market.key(subscription)
    market.store.close()
    with sqlite3.connect(tmp_path / "market.db") as lock:
        lock.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "market.db").rename(tmp_path / "away")
    (tmp_path / "market.db").mkdir()
    with Gateway(tmp_path, backend) as gateway:
        gateway.says("the marketplace store failed")
        answer = gateway.answers("/orders", key, 503)
        assert reason(answer) == "identity_unavailable"
        assert gateway.call("/orders", WRITTEN).status_code == 200
        assert gateway.status()["marketplace"]["complete"] is False
        (tmp_path / "market.db").rmdir()
        (tmp_path / "away").rename(tmp_path / "market.db")
        gateway.answers("/orders", key, 200)


def test_a_control_plane_that_is_killed_takes_no_key_along(gateway: Gateway, market: Market) -> None:
    """Its policy server ends with it; both come back with the keys of now, and none that was revoked meanwhile."""
    _, subscription = subscribed(market)
    approve(market, subscription)
    key, revoked = market.key(subscription), market.key(subscription, "secondary")
    gateway.answers("/orders", revoked, 200)
    gateway.stop(signal.SIGKILL)
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.revoke_key(now, subscription.id, "secondary")
    gateway.start()
    gateway.answers("/orders", key, 200)
    assert gateway.call("/orders", revoked).status_code == 401


def test_a_name_that_both_have_is_reported_and_the_files_win(gateway: Gateway, market: Market) -> None:
    _, subscription = subscribed(market)
    approve(market, subscription)
    key = market.key(subscription)
    gateway.answers("/orders", key, 200)
    gateway.write("2", consumer=subscription.consumer)
    gateway.says(
        "consumers.acme.mobile.shop of the gateway and the subscription 'acme.mobile.shop' of the marketplace have the same name"
    )
    gateway.answers("/orders", key, 401)
    assert gateway.call("/orders", WRITTEN).status_code == 200
    assert gateway.status()["marketplace"]["clashes"] == ["acme.mobile.shop"]
    gateway.write("3", consumer="acme")
    gateway.answers("/orders", key, 200)


def test_a_plan_that_the_gateway_does_not_have_is_reported(gateway: Gateway, market: Market) -> None:
    _, subscription = subscribed(market, "old", plans=[{"plan": "old"}, {"plan": "gold"}])
    key = market.key(subscription)
    gateway.answers("/orders", key, 200)
    gateway.says("the gateway has no plan 'old'")
    assert gateway.status()["marketplace"]["without_limits"] == {"old": 1}
    with market.store.begin(market.actor("ada")) as now:
        subscriptions.change_plan(now, subscription.id, "gold")
    wait_for(lambda: gateway.status()["marketplace"]["without_limits"] == {}, "the change of the plan")


def test_a_user_who_is_disabled_keeps_the_keys_of_the_organisation(gateway: Gateway, market: Market) -> None:
    _, subscription = subscribed(market)
    approve(market, subscription)
    key = market.key(subscription)
    gateway.answers("/orders", key, 200)
    with market.store.begin(market.actor("adm")) as now:
        people.change_user(now, market.users["ada"].id, disabled=True)
    assert gateway.call("/orders", key).status_code == 200
