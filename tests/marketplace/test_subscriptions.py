"""Products, subscriptions and keys, and what policy servers are told of them."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from typing import Any

import pytest

from tests.support.market import COMMERCE, OFFERED, Market
from xds_server.marketplace import applications, products, subscribers, subscriptions
from xds_server.marketplace.actor import CLOCK, COMMAND, GATEWAY
from xds_server.marketplace.errors import Conflict, Forbidden, Invalid, NotFound, Stale
from xds_server.marketplace.records import Subscriber
from xds_server.marketplace.store import Marketplace


def told(market: Market, since: int = 0) -> list[Subscriber]:
    with market.store.read(COMMAND) as now:
        return subscribers.changed_since(now, since, 1000)


def sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def test_a_key_of_an_automatic_plan_works_at_once(market: Market) -> None:
    subscription = market.subscribe(market.application(), market.product())
    assert (subscription.state, subscription.consumer) == ("active", "acme.mobile.commerce")
    assert told(market)[0].keys == ()
    made = market.key(subscription)
    assert made.secret.startswith("xgk_")
    assert made.secret not in repr(made)
    (row,) = told(market)
    assert (row.consumer, row.plan, row.apis) == ("acme.mobile.commerce", "free", ("orders",))
    assert row.keys == ((sha256(made.secret), 0),)


def test_keys_are_made_again_one_at_a_time(market: Market) -> None:
    subscription = market.subscribe(market.application(), market.product())
    first, second = market.key(subscription), market.key(subscription, "secondary")
    again = market.key(subscription)
    assert {key for key, _ in told(market)[0].keys} == {sha256(again.secret), sha256(second.secret)}
    with market.store.begin(market.actor("pub")) as now:
        subscriptions.revoke_key(now, subscription.id, "secondary")
        with pytest.raises(NotFound):
            subscriptions.revoke_key(now, subscription.id, "secondary")
        with pytest.raises(Forbidden, match="only members"):
            subscriptions.make_key(now, subscription.id, "primary")
    assert [key for key, _ in told(market)[0].keys] == [sha256(again.secret)]
    assert first.secret != again.secret


def test_a_manual_plan_waits_for_a_publisher(market: Market) -> None:
    subscription = market.subscribe(market.application(), market.product(), "gold")
    key = market.key(subscription)
    assert subscription.state == "submitted"
    assert told(market)[0].keys == ()
    with market.store.begin(market.actor("ada")) as now, pytest.raises(Forbidden):
        subscriptions.approve(now, subscription.id)
    with market.store.begin(market.actor("pub")) as now:
        approved = subscriptions.approve(now, subscription.id, "welcome", version=subscription.version)
        assert (approved.state, approved.note, approved.decided_by) == (
            "active",
            "welcome",
            market.users["pub"].id,
        )
        with pytest.raises(Conflict, match="is active"):
            subscriptions.reject(now, subscription.id)
        with pytest.raises(Stale):
            subscriptions.suspend(now, subscription.id, version=subscription.version)
    assert told(market)[0].keys == ((sha256(key.secret), 0),)


def test_suspended_cancelled_and_expired_subscriptions_have_no_keys_that_work(market: Market) -> None:
    product, clock = market.product(), market.clock
    subscription = market.subscribe(market.application(), product)
    key = market.key(subscription)
    with market.store.begin(market.actor("pub")) as now:
        subscriptions.suspend(now, subscription.id, "unpaid")
    assert told(market)[0].keys == ()
    with market.store.begin(market.actor("pub")) as now:
        subscriptions.resume(now, subscription.id)
        subscriptions.set_expiry(now, subscription.id, int(clock.now) + 60)
    assert told(market)[0].keys == ((sha256(key.secret), clock.now + 60),)
    clock.now += 60
    with market.store.begin(CLOCK) as now:
        assert subscriptions.expire(now) == 1
        assert subscriptions.expire(now) == 0
    assert told(market)[0].keys == ()
    again = market.subscribe(market.application("Web"), product)
    with market.store.begin(market.actor("bob")) as now:
        assert subscriptions.cancel(now, again.id).state == "cancelled"
        with pytest.raises(Conflict, match="is cancelled"):
            subscriptions.make_key(now, again.id, "primary")


def test_a_consumer_is_never_used_again(market: Market) -> None:
    product, application = market.product(), market.application()
    names = []
    for _ in range(3):
        subscription = market.subscribe(application, product, taken=["acme.mobile.commerce-2"])
        names.append(subscription.consumer)
        with market.store.begin(market.actor("ada")) as now:
            subscriptions.cancel(now, subscription.id)
    assert names == ["acme.mobile.commerce", "acme.mobile.commerce-3", "acme.mobile.commerce-4"]


def test_two_requests_at_once_make_one_subscription(market: Market, url: str) -> None:
    product, application = market.product(), market.application()
    stores = [Marketplace(url, market.clock) for _ in range(4)]
    ada, outcomes = market.actor("ada"), list[str]()

    def request(store: Marketplace) -> None:
        try:
            with store.begin(ada) as now:
                subscriptions.subscribe(now, application.id, product.id, "free")
            outcomes.append("made")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=request, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["conflict"] * 3 + ["made"]
    for store in stores:
        store.close()


def test_changes_at_once_are_numbered_without_a_gap(market: Market, url: str) -> None:
    product = market.product()
    made = [market.subscribe(market.application(f"App {number}"), product) for number in range(4)]
    ada, begin = market.actor("ada"), told(market)[-1].sequence

    def rotate(one: Any) -> None:
        store = Marketplace(url, market.clock)
        for _ in range(10):
            with store.begin(ada) as now:
                subscriptions.make_key(now, one.id, "primary")
        store.close()

    threads = [threading.Thread(target=rotate, args=(one,)) for one in made]
    for thread in threads:
        thread.start()
    seen: dict[str, int] = {}
    at = begin
    while any(thread.is_alive() for thread in threads) or told(market, at):
        for row in told(market, at):
            assert row.sequence > at
            seen[row.consumer] = at = row.sequence
    assert at == begin + 40
    assert seen == {one.consumer: one.sequence for one in told(market)}


def test_a_key_that_is_made_while_the_subscription_ends_does_not_work(market: Market, url: str) -> None:
    """Two transactions at once, again and again: whichever is last, an ended subscription has no keys."""
    ada, pub = market.actor("ada"), market.actor("pub")
    stores = Marketplace(url, market.clock), Marketplace(url, market.clock)
    for number in range(25):
        one = market.subscribe(market.application(f"App {number}"), market.product(slug=f"p{number}"))
        end = subscriptions.cancel if number % 2 else subscriptions.suspend

        def make(id_: str = one.id) -> None:
            with contextlib.suppress(Conflict, Stale), stores[0].begin(ada) as now:
                subscriptions.make_key(now, id_, "primary")

        def stop(id_: str = one.id, end: Any = end) -> None:
            with stores[1].begin(pub) as now:
                end(now, id_)

        threads = [threading.Thread(target=make), threading.Thread(target=stop)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        (row,) = [row for row in told(market) if row.consumer == one.consumer]
        assert row.keys == ()
    for store in stores:
        store.close()


def test_a_suspension_cannot_be_evaded(market: Market) -> None:
    product = market.product()
    subscription = market.subscribe(market.application(), product)
    with market.store.begin(market.actor("pub")) as now:
        subscriptions.suspend(now, subscription.id)
    with market.store.begin(market.actor("ada")) as now, pytest.raises(Conflict, match="is suspended"):
        subscriptions.cancel(now, subscription.id)
    with market.store.begin(market.actor("ada")) as now, pytest.raises(Conflict, match="is suspended"):
        applications.delete_application(now, subscription.application)
    assert market.subscribe(market.application("Other"), product).state == "submitted"


def test_another_list_of_apis_reaches_every_subscription(market: Market) -> None:
    product = market.product()
    for number in range(3):
        market.key(market.subscribe(market.application(f"App {number}"), product))
    before = told(market)[-1].sequence
    with market.store.begin(market.actor("pub")) as now:
        products.change_product(now, product.id, {"apis": ["orders", "payments"]}, OFFERED)
    assert [row.apis for row in told(market, before)] == [("orders", "payments")] * 3


def test_products_are_seen_by_those_for_whom_they_are(market: Market) -> None:
    market.product(slug="hidden", visible_to=["other"])
    market.product(slug="draft", publish=False)
    market.product()
    with market.store.read(market.actor("ada")) as now:
        assert [one.slug for one in products.products(now).items] == ["commerce"]
        for name in ("hidden", "draft"):
            with pytest.raises(NotFound):
                products.product(now, name)
    with market.store.read(market.actor("eve")) as now:
        assert {one.slug for one in products.products(now).items} == {"commerce", "hidden"}
    with market.store.begin(market.actor("ada")) as now, pytest.raises(Forbidden):
        products.add_product(now, COMMERCE, OFFERED)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"apis": ["nothing"]}, "apis"),
        ({"apis": []}, "apis"),
        ({"plans": []}, "plans"),
        ({"plans": [{"plan": "free"}, {"plan": "free"}]}, "plans"),
        ({"plans": [{"plan": "silver"}]}, "plans.0.plan"),
        ({"plans": [{"plan": "free", "approval": "never"}]}, "plans.0.approval"),
        ({"plans": [{"plan": "free", "price": {"currency": "euro"}}]}, "plans.0.price.currency"),
        ({"plans": [{"plan": "free", "price": {"currency": "EUR", "monthly": 1.5}}]}, "plans.0.price.monthly"),
        ({"plans": [{"plan": "free", "price": {"currency": "EUR", "monthly": -1}}]}, "plans.0.price.monthly"),
        ({"plans": [{"plan": "free", "price": {"currency": "EUR", "tiers": {"steps": [{"amount": 1, "up_to": 5}]}}}]}, "plans.0.price.tiers.steps.0.up_to"),
        ({"plans": [{"plan": "free", "price": {"currency": "EUR"}}, {"plan": "gold", "price": {"currency": "KRW"}}]}, "plans"),
        ({"plans": "free"}, "plans"),
        ({"title": ""}, "title"),
        ({"title": 5}, "title"),
        ({"owner": "x"}, "owner"),
        ({"visible_to": ["No Slug"]}, "visible_to"),
    ],
)  # fmt: skip
def test_a_product_with_a_wrong_value_is_refused_with_its_field(
    market: Market, values: dict[str, Any], field: str
) -> None:
    with market.store.begin(market.actor("pub")) as now:
        with pytest.raises(Invalid) as error:
            products.add_product(now, {**COMMERCE, **values}, OFFERED)
        assert error.value.field == field


def test_products_of_the_gateway_are_changed_there(market: Market) -> None:
    written = [{**COMMERCE, "slug": "written"}]
    with market.store.begin(GATEWAY) as now:
        products.take_from_gateway(now, written, OFFERED)
        products.take_from_gateway(now, written, OFFERED)
        found = products.product(now, "written")
        assert (found.source, found.state, found.version) == ("gateway", "published", 1)
    with market.store.begin(market.actor("pub")) as now, pytest.raises(Conflict, match="gateway's YAML"):
        products.change_product(now, found.id, {"title": "Mine"}, OFFERED)
    subscription = market.subscribe(market.application(), found)
    with market.store.begin(GATEWAY) as now:
        products.take_from_gateway(now, [], OFFERED)
        assert products.product(now, "written").state == "retired"
        assert subscriptions.subscription(now, subscription.id).state == "active"
        products.take_from_gateway(now, written, OFFERED)
        assert products.product(now, "written").state == "published"
    market.product()
    with (
        market.store.begin(GATEWAY) as now,
        pytest.raises(Conflict, match=r"products\.commerce of the gateway"),
    ):
        products.take_from_gateway(now, [COMMERCE], OFFERED)


def test_a_plan_with_subscriptions_stays(market: Market) -> None:
    product = market.product()
    subscription = market.subscribe(market.application(), product)
    with market.store.begin(market.actor("pub")) as now, pytest.raises(Conflict, match="has subscriptions"):
        products.change_product(now, product.id, {"plans": [{"plan": "gold"}]}, OFFERED)
    with market.store.begin(market.actor("ada")) as now, pytest.raises(Forbidden, match="needs approval"):
        subscriptions.change_plan(now, subscription.id, "gold")
    with market.store.begin(market.actor("adm")) as now:
        assert subscriptions.change_plan(now, subscription.id, "gold").plan == "gold"
    assert told(market)[0].plan == "gold"


def test_terms_are_accepted_first(market: Market) -> None:
    product, application = market.product(terms="Be kind."), market.application()
    with pytest.raises(Invalid) as error:
        market.subscribe(application, product)
    assert error.value.field == "accepts_terms"
    assert market.subscribe(application, product, accepts_terms=True).state == "active"


def test_a_foreign_object_is_as_one_that_does_not_exist(market: Market) -> None:
    application, product = market.application(), market.product()
    subscription = market.subscribe(application, product)
    with market.store.begin(market.actor("eve")) as now:
        for ask in (
            lambda: subscriptions.application(now, application.id),
            lambda: subscriptions.subscription(now, subscription.id),
            lambda: subscriptions.subscription(now, subscription.consumer),
            lambda: subscriptions.keys(now, subscription.id),
            lambda: subscriptions.make_key(now, subscription.id, "primary"),
            lambda: subscriptions.cancel(now, subscription.id),
            lambda: subscriptions.change_plan(now, subscription.id, "free"),
            lambda: subscriptions.subscribe(now, application.id, product.id, "free"),
            lambda: applications.change_application(now, application.id, name="Mine"),
            lambda: applications.delete_application(now, application.id),
            lambda: applications.add_application(now, market.acme.id, "Mine"),
            lambda: subscriptions.subscriptions(now, application_=application.id),
        ):
            with pytest.raises(NotFound, match="there is no such"):
                ask()
        assert subscriptions.subscriptions(now).items == []
        assert applications.applications(now).items == []


def test_a_deleted_application_ends_its_subscriptions(market: Market) -> None:
    application = market.application()
    subscription = market.subscribe(application, market.product())
    market.key(subscription)
    with market.store.begin(market.actor("ada")) as now:
        applications.delete_application(now, application.id)
        with pytest.raises(NotFound):
            subscriptions.application(now, application.id)
        assert subscriptions.subscription(now, subscription.id).state == "cancelled"
        with pytest.raises(Conflict, match="has or had"):
            applications.add_application(now, "acme", "Mobile", slug="mobile")
        assert applications.add_application(now, "acme", "Mobile").slug == "mobile-2"
    assert told(market)[0].keys == ()
