"""The sections of the API marketplace: catalog, products and portal."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.reading import load, read, warnings
from xds_server.gateway.model import portal
from xds_server.gateway.model.catalog import MarkdownFile, Visibility, moment
from xds_server.gateway.model.products import Price
from xds_server.gateway.reader import Reader
from xds_server.translate.explain import applied

GATEWAY = """
listeners: {http: {port: 8080}}
upstreams: {orders: {endpoints: ["127.0.0.1:9001"]}}
plans: {free: {rate_limit: 10/hour}, gold: {rate_limit: 10/second}}
consumers:
  acme: {plan: free, api_keys: [{sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]}
routes:
  orders: {path: /orders/*, upstream: orders, policies: {api_key: true}}
  admin: {path: /admin/*, upstream: orders}
catalog:
  orders:
    title: Orders
    version: 2.10
    openapi: specs/orders.yaml
    routes: [orders]
    tags: [commerce]
    owner: Team Orders
    lifecycle: deprecated
    deprecated: 2026-11-01
    sunset: 2027-05-01T12:00:00+09:00
    docs: [docs/First steps.md]
    visibility: public
products:
  commerce:
    apis: [orders]
    description: "Buy **things**"
    terms: {inline: Be kind.}
    plans:
      free: {}
      gold:
        approval: manual
        price:
          currency: EUR
          monthly: 2900
          included: 10000
          tiers: {mode: volume, steps: [{up_to: 100000, amount: 50, per: 1000}, {amount: 30, per: 1000}]}
portal:
  url: https://developers.example.com/portal
  gateway: https://api.example.com
  login: {issuer: "https://idp.example.com", client_id: portal, client_secret: {env: SECRET}}
"""
DOCUMENT = b"openapi: 3.1.0\ninfo: {title: Orders, version: '1'}"
FILES = {"specs/orders.yaml": DOCUMENT, "docs/First steps.md": b"# First steps"}


def _read(reader: Reader, files: dict[str, bytes] = FILES, text: str = GATEWAY):  # type: ignore[no-untyped-def]
    def read_file(name: str) -> bytes:
        return files[name] if name in files else load(name)

    reading = reader.read({"gateway.yaml": text.encode()}, read_file, {"SECRET": "hunter2"})
    assert reading.gateway is not None, reading.errors
    assert reading.problems == ()
    return reading.gateway


def test_every_key_is_read() -> None:
    gateway = _read(Reader())
    api, product = gateway.sections.catalog["orders"], gateway.sections.products["commerce"]
    assert (api.version, api.owner.name, api.docs[0].slug) == ("2.10", "Team Orders", "first-steps")
    assert gateway.contents[api.openapi] == DOCUMENT
    assert gateway.contents[api.docs[0]] == b"# First steps"
    assert gateway.contents[product.terms] == b"Be kind."
    price = product.plans["gold"].price
    assert (price.monthly, [step.up_to for step in price.tiers.steps]) == (2900, [100000, None])
    assert product.plans["free"].price is None
    section = gateway.sections.portal
    assert section.origin == "https://developers.example.com"
    assert section.api_url("orders") == "https://developers.example.com/portal/apis/orders"


def test_a_gateway_without_a_portal_has_none() -> None:
    gateway = read("listeners: {http: {port: 8080}}").gateway
    assert gateway is not None
    section = gateway.sections.portal
    assert (section.declared, section.origin, section.api_url("orders")) == (False, None, None)


def test_a_route_knows_its_api() -> None:
    context = _read(Reader()).context
    assert context.on_route("orders", {}).api == "orders"
    assert context.on_route("admin", {}).api is None


def test_secrets_and_pages_of_the_portal_are_not_for_policies() -> None:
    gateway = _read(Reader())
    assert b"hunter2" in gateway.contents.values()
    assert gateway.context.contents == {}
    assert "hunter2" not in repr(gateway)


def test_a_changed_page_translates_no_route_again() -> None:
    reader = Reader()
    before = _read(reader)
    after = _read(reader, FILES | {"docs/First steps.md": b"# Other"})
    assert after.contents[MarkdownFile(file="docs/First steps.md")] == b"# Other"
    assert after.context is before.context
    assert after.files == before.files


def _written(catalog: str) -> str:
    return "listeners: {http: {port: 8080}}\nroutes: {a: {path: /a, respond: {body: a}}}\n" + catalog


@pytest.mark.parametrize(
    ("api", "expected"),
    [
        ("{routes: [a]}", {}),
        ("{routes: [a], deprecated: 1970-01-02}", {"api": (("deprecation", "@86400"),)}),
        (
            "{routes: [a], sunset: 2026-12-31T23:30:00-01:00}",
            {"api": (("sunset", "Fri, 01 Jan 2027 00:30:00 GMT"),)},
        ),
        ("{routes: [a], successor: next}", {}),
    ],
)
def test_without_a_portal_there_are_links_only_where_they_are_written(
    api: str, expected: dict[str, object]
) -> None:
    text = _written(f"catalog: {{api: {api}, next: {{routes: [b]}}}}").replace(
        "routes: {a", "routes: {b: {path: /b, respond: {body: b}}, a"
    )
    gateway = read(text).gateway
    assert gateway is not None
    assert dict(gateway.context.lifecycles) == expected


@pytest.mark.parametrize(
    ("cors", "warned"),
    [
        ('{allow_origins: ["https://shop.test"]}', True),
        ("off", True),
        ('{allow_origins: ["*"]}', False),
        ('{allow_origins: ["https://*.test"]}', False),
        ('{allow_origins: ["https://shop.test", "https://portal.test"]}', False),
    ],
)
def test_a_cors_policy_that_keeps_the_portal_out_is_warned_of(cors: str, warned: bool) -> None:
    text = _written("""
catalog: {api: {routes: [a]}}
portal: {url: "https://portal.test/x", gateway: "https://api.test"}
policies: {cors: CORS}
""").replace("CORS", cors)
    found = warnings(read(text))
    assert found == (
        [
            (
                "catalog.api.routes[0]: developers cannot try the route 'a' in the portal, because its policy cors does not "
                "allow pages of https://portal.test"
            )
        ]
        if warned
        else []
    )


def test_a_portal_behind_the_gateway_needs_no_cors() -> None:
    text = _written("""
catalog: {api: {routes: [a]}}
portal: {url: "https://api.test/portal", gateway: "https://api.test"}
""")
    gateway = read(text).gateway
    assert gateway is not None
    assert "cors" not in gateway.policies["a"]


def test_explain_names_the_portal() -> None:
    text = _written("""
catalog: {api: {routes: [a]}}
portal: {url: "https://portal.test", gateway: "https://api.test"}
""")
    gateway = read(text).gateway
    assert gateway is not None
    assert [(one.key, one.level) for one in applied(gateway, "a")] == [("cors", "the portal")]


def test_a_sold_api_needs_callers_that_are_known() -> None:
    text = GATEWAY.replace("routes: [orders]", "routes: [orders, admin]")
    text = text.replace("openapi: specs/orders.yaml", "").replace("docs: [docs/First steps.md]", "")
    reading = read(text, {"SECRET": "hunter2"})
    assert warnings(reading) == [
        "catalog.orders.routes[1]: the route 'admin' identifies no caller, so it needs no subscription"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01T00:00:00+09:00", datetime(2026, 10, 31, 15, tzinfo=UTC)),
    ],
)
def test_a_date_is_its_first_moment_in_utc(text: str, expected: datetime) -> None:
    assert moment(text) == expected


def test_members_see_what_is_for_their_organisation() -> None:
    mine = Visibility(organisations=("acme", "initech"))
    assert (mine.allows("acme"), mine.allows("other"), mine.allows(None)) == (True, False, False)
    assert mine.covers(Visibility(organisations=("acme",)))
    assert not mine.covers(Visibility.short("public"))
    assert Visibility.short("public").covers(mine)


def test_callers_pay_for_answers_of_the_service() -> None:
    price = Price(currency="EUR")
    counted = [status for status in (0, 101, 200, 304, 404, 401, 403, 429, 500, 503) if price.counts(status)]
    assert counted == [200, 304, 404]
    price = Price(currency="EUR", statuses=("2xx", "429"))
    assert [status for status in (200, 204, 404, 429, 500) if price.counts(status)] == [200, 204, 429]


@pytest.mark.parametrize(
    ("color", "contrast"), [("#000000", 21.0), ("#ffffff", 1.0), ("#767676", 4.54), ("#0b5fff", 5.13)]
)
def test_contrast_is_that_of_wcag(color: str, contrast: float) -> None:
    assert portal.contrast_with_white(color) == pytest.approx(contrast, abs=0.01)


def test_a_bill_has_one_currency() -> None:
    mixed = GATEWAY.replace("      free: {}\n", "      free: {price: {currency: KRW, monthly: 100}}\n")
    problems = (
        Reader().read({"gateway.yaml": mixed.encode()}, FILES.__getitem__, {"SECRET": "s" * 40}).problems
    )
    found = [str(one) for one in problems if "currency" in str(one)]
    assert len(found) == 1
    assert "products.commerce.plans: the plans have prices in EUR and KRW" in found[0]


def test_a_document_is_no_part_of_a_gateway_with_errors() -> None:
    files = {
        "gateway.yaml": GATEWAY.replace("catalog:", "catalogue:").encode(),
        "specs/orders.yaml": DOCUMENT,
    }
    reading = Reader().read(files, load, {"SECRET": "hunter2"})
    assert {one.place.file for one in reading.problems if one.place is not None} == {"gateway.yaml"}
    alone = Reader().read({"specs/orders.yaml": DOCUMENT}, load, {})
    assert {one.place.file for one in alone.problems if one.place is not None} == {"specs/orders.yaml"}
