"""What responses say of the lifecycle of an API, and calls from the portal's pages, in the real Envoy."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways

PORTAL, FOREIGN = "https://developers.test", "https://evil.test"
DEPRECATED, SUNSET = "@1793491200", "Sat, 01 May 2027 03:00:00 GMT"
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}, dead: {endpoints: ["127.0.0.1:1"]}}
plans: {free: {rate_limit: 1000/hour}}
consumers: {acme: {plan: free, api_keys: [{sha256: "$key"}]}}
policies: {metering: off}
routes:
  orders: {path: /orders, methods: [GET], upstream: echo}
  dead: {path: /dead, upstream: dead}
  own: {path: /own, respond: {body: own}}
  moved: {path: /moved, redirect: {to: /own}}
  secret: {path: /secret, upstream: echo, policies: {api_key: true}}
  limited: {path: /limited, upstream: echo, policies: {rate_limit: {requests: 1, per: hour, by: ip, scope: local}}}
  cached: {path: /cached, upstream: echo, policies: {cache: {ttl: 1h}}}
  fixed: {path: /fixed, upstream: echo, response_headers: {set: {sunset: never}}}
  shop: {path: /shop, upstream: echo, policies: {cors: {allow_origins: ["https://shop.test", "https://*.test"]}}}
  next: {path: /next, upstream: echo}
  other: {path: /other, upstream: echo}
catalog:
  orders:
    routes: [orders, dead, own, moved, secret, limited, cached, fixed, shop]
    deprecated: 2026-11-01
    sunset: 2027-05-01T12:00:00+09:00
    successor: orders-v2
    links: {sunset: "https://example.com/end?100%25"}
  orders-v2: {routes: [next]}
portal: {url: https://developers.test/portal, gateway: https://api.test}
"""
LINK = (
    '<https://developers.test/portal/apis/orders>; rel="deprecation"; type="text/html", '
    '<https://example.com/end?100%25>; rel="sunset"; type="text/html", '
    '<https://developers.test/portal/apis/orders-v2>; rel="successor-version"; type="text/html"'
)


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(YAML, echo=backend.address, key="a" * 64)


@pytest.fixture(autouse=True)
def _backend(backend: Backend) -> Iterator[None]:
    yield
    backend.headers = {}


def _lifecycle(response: httpx.Response) -> tuple[list[str], ...]:
    return tuple(response.headers.get_list(name) for name in ("deprecation", "sunset", "link"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/orders", 200),
        ("GET", "/dead", 503),
        ("GET", "/own", 200),
        ("GET", "/moved", 302),
        ("GET", "/secret", 401),
        ("POST", "/orders", 405),
    ],
)
def test_every_response_of_an_api_announces_its_end(
    gateway: Gateway, method: str, path: str, status: int
) -> None:
    response = gateway.request(method, path)
    assert response.status_code == status
    assert _lifecycle(response) == ([DEPRECATED], [SUNSET], [LINK])


def test_a_response_over_the_limit_announces_it_too(gateway: Gateway) -> None:
    gateway.get("/limited")
    response = gateway.get("/limited")
    assert response.status_code == 429
    assert _lifecycle(response) == ([DEPRECATED], [SUNSET], [LINK])


def test_a_response_from_the_cache_announces_it_once(gateway: Gateway) -> None:
    gateway.get("/cached")
    response = gateway.get("/cached")
    assert response.headers["age"]
    assert _lifecycle(response) == ([DEPRECATED], [SUNSET], [LINK])


@pytest.mark.parametrize("path", ["/orders", "/cached?linked"])
def test_links_of_the_upstream_stay(gateway: Gateway, backend: Backend, path: str) -> None:
    backend.headers = {"deprecation": "@1", "link": '</next>; rel="next"'}
    for _ in range(2):
        deprecation, sunset, links = _lifecycle(gateway.get(path))
        assert (deprecation, sunset, sorted(links)) == (
            [DEPRECATED],
            [SUNSET],
            sorted(['</next>; rel="next"', LINK]),
        )


def test_a_route_may_know_better(gateway: Gateway) -> None:
    assert _lifecycle(gateway.get("/fixed")) == ([DEPRECATED], ["never"], [LINK])


@pytest.mark.parametrize("path", ["/next", "/other", "/nowhere"])
def test_other_responses_announce_nothing(gateway: Gateway, path: str) -> None:
    assert _lifecycle(gateway.get(path)) == ([], [], [])


@pytest.mark.parametrize("path", ["/orders", "/secret", "/next", "/own"])
def test_pages_of_the_portal_may_call_with_any_header(gateway: Gateway, path: str) -> None:
    headers = {
        "origin": PORTAL,
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization,content-type,x-api-key",
    }
    response = gateway.request("OPTIONS", path, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PORTAL
    assert response.headers["access-control-allow-methods"] == "GET"
    assert response.headers["access-control-allow-headers"] == "authorization,content-type,x-api-key"
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    ("path", "status"), [("/orders", 200), ("/secret", 401), ("/dead", 503), ("/nowhere", 404)]
)
def test_pages_of_the_portal_read_every_response(gateway: Gateway, path: str, status: int) -> None:
    response = gateway.get(path, headers={"origin": PORTAL})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == PORTAL
    assert response.headers["access-control-expose-headers"] == "*"
    assert "access-control-allow-credentials" not in response.headers
    assert "Origin" in response.headers.get_list("vary", split_commas=True)


@pytest.mark.parametrize(("path", "origin"), [("/orders", FOREIGN), ("/other", PORTAL), ("/orders", "null")])
def test_other_pages_and_other_routes_get_nothing(gateway: Gateway, path: str, origin: str) -> None:
    response = gateway.get(path, headers={"origin": origin})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


def test_a_cors_policy_of_the_route_is_all_that_it_has(gateway: Gateway) -> None:
    response = gateway.get("/shop", headers={"origin": "https://shop.test"})
    assert response.headers["access-control-allow-origin"] == "https://shop.test"
    assert "access-control-expose-headers" not in response.headers
    assert gateway.get("/shop", headers={"origin": PORTAL}).headers["access-control-allow-origin"] == PORTAL
