"""CORS in the real Envoy: preflights, and what answers of every kind say to pages and to caches."""

from __future__ import annotations

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port

SHOP, FOREIGN = "https://shop.test", "https://evil.test"
YAML = """
listeners:
  every: {port: $port, address: 127.0.0.1}
  exact: {port: $exact, address: 127.0.0.1}
upstreams: {echo: {endpoints: ["$echo"]}, dead: {endpoints: ["127.0.0.1:1"]}}
consumers: {acme: {api_keys: [{sha256: "$key"}]}}
policies:
  cors: {allow_origins: ["https://shop.test"], expose_headers: [x-total], allow_credentials: true, max_age: 1h}
routes:
  forward: {path: /forward, upstream: echo}
  own: {path: /own, respond: {body: own}}
  moved: {path: /moved, redirect: {to: /own}}
  dead: {path: /dead, upstream: dead}
  reading: {path: /reading, methods: [GET], upstream: echo}
  own-reading: {path: /own-reading, methods: [GET], respond: {body: own}}
  checked: {path: /checked, upstream: echo, policies: {validate: {required_headers: [x-tenant]}}}
  denied: {path: /denied, upstream: echo, policies: {ip_access: {deny: [127.0.0.1]}}}
  secret: {path: /secret, upstream: echo, policies: {api_key: true}}
  limited: {path: /limited, upstream: echo, policies: {rate_limit: {requests: 1, per: hour, by: ip, scope: local}}}
  without: {path: /without, upstream: echo, policies: {cors: off}}
  all: {path: /all, upstream: echo, policies: {cors: {allow_origins: ["*"], allow_methods: ["*"], allow_headers: ["*"]}}}
  many:
    path: /many
    upstream: echo
    policies:
      cors:
        allow_origins: ["https://*.shop.test", "https://*.port.test:8443", "http://local.test:3000", "capacitor://localhost",
          "ionic://localhost", "chrome-extension://abcdefghijklmnop", "http://[::1]:3000", "null"]
  web: {path: /web, upstream: echo, policies: {grpc_web: true, cors: {allow_origins: ["https://shop.test"], allow_headers: [X-User-Agent, x-own]}}}
  two-get: {path: /two, methods: [GET], upstream: echo, policies: {cors: {allow_origins: ["https://a.test"]}}}
  two-post: {path: /two, methods: [POST, PUT], upstream: echo, policies: {cors: {allow_origins: ["https://b.test"]}}}
  two-rest: {path: /two/*, upstream: echo, policies: {cors: {allow_origins: ["https://c.test"]}}}
  both-a: {path: /both, methods: [GET, OPTIONS], upstream: echo, policies: {cors: {allow_origins: ["https://a.test"]}}}
  both-b: {path: /both, methods: [POST], upstream: echo, policies: {cors: {allow_origins: ["https://b.test"]}}}
  host: {path: /host, hosts: [api.test], listeners: [exact], respond: {body: host}}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(YAML, exact=free_port(), echo=backend.address, key="a" * 64)


def _preflight(gateway: Gateway, path: str, origin: str, method: str = "GET", **more: str) -> httpx.Response:
    asked = {name.replace("_", "-"): value for name, value in more.items()}
    headers = {"origin": origin, "access-control-request-method": method, **asked}
    return gateway.request("OPTIONS", path, headers=headers)


def _readable(answer: httpx.Response, origin: str = SHOP) -> bool:
    """Whether a page of the origin may read the answer with its credentials, and caches keep origins apart."""
    headers = answer.headers
    assert headers.get_list("access-control-allow-origin") == [origin]
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-expose-headers"] == "x-total"
    return "Origin" in headers.get_list("vary", split_commas=True)


ANSWERS = [
    ("GET", "/forward", 200),
    ("GET", "/own", 200),
    ("GET", "/moved", 302),
    ("GET", "/dead", 503),
    ("GET", "/checked", 400),
    ("GET", "/denied", 403),
    ("GET", "/secret", 401),
    ("GET", "/nowhere", 404),
    ("POST", "/reading", 405),
    ("POST", "/own-reading", 405),
    ("OPTIONS", "/forward", 200),
    ("OPTIONS", "/reading", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_an_allowed_page_reads_every_kind_of_answer(
    gateway: Gateway, method: str, path: str, status: int
) -> None:
    answer = gateway.request(method, path, headers={"origin": SHOP})
    assert answer.status_code == status
    assert _readable(answer)


@pytest.mark.parametrize("origin", [None, FOREIGN])
@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_a_cache_keeps_answers_for_others_apart(
    gateway: Gateway, method: str, path: str, status: int, origin: str | None
) -> None:
    answer = gateway.request(method, path, headers={"origin": origin} if origin is not None else {})
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers.get_list("vary", split_commas=True) == ["Origin"]


@pytest.mark.parametrize("path", [path for _, path, _ in ANSWERS[:10]])
def test_a_preflight_of_an_allowed_page_is_answered(gateway: Gateway, backend: Backend, path: str) -> None:
    backend.seen.clear()
    answer = _preflight(gateway, path, SHOP, access_control_request_headers="x-api-key")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "GET" in answer.headers["access-control-allow-methods"].split(", ")
    assert "x-api-key" in answer.headers["access-control-allow-headers"].split(", ")
    assert answer.headers["access-control-max-age"] == "3600"
    assert answer.headers["vary"] == "Origin"
    assert backend.seen == []


@pytest.mark.parametrize("path", [path for _, path, _ in ANSWERS[:10]])
def test_a_preflight_of_a_foreign_page_goes_no_further(gateway: Gateway, backend: Backend, path: str) -> None:
    backend.seen.clear()
    answer = _preflight(gateway, path, FOREIGN)
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (403, "cors_denied")
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["vary"] == "Origin"
    assert backend.seen == []


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/two", "GET", "https://a.test"),
        ("/two", "POST", "https://b.test"),
        ("/two", "PUT", "https://b.test"),
        ("/two", "DELETE", "https://c.test"),
        ("/two/x", "GET", "https://c.test"),
        ("/both", "GET", "https://a.test"),
        ("/both", "OPTIONS", "https://a.test"),
        ("/both", "POST", "https://b.test"),
        ("/both", "DELETE", "https://a.test"),
    ],
)
def test_a_preflight_has_the_rules_of_the_route_that_takes_the_method(
    gateway: Gateway, path: str, method: str, allowed: str
) -> None:
    for origin in ("https://a.test", "https://b.test", "https://c.test"):
        answer = _preflight(gateway, path, origin, method)
        assert answer.status_code == (200 if origin == allowed else 403), origin
        assert answer.headers.get("access-control-allow-origin") == (origin if origin == allowed else None)


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_what_is_no_preflight_reaches_the_route_with_its_method(gateway: Gateway, method: str) -> None:
    answer = gateway.request(method, "/both", headers={"origin": "https://a.test"})
    assert (answer.status_code, answer.json()["method"]) == (200, method)


@pytest.mark.parametrize("origin", [{}, {"origin": ""}])
@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/reading", "GET", 405), ("/two", "GET", 200), ("/both", "GET", 200), ("/both", "POST", 200)],
)
def test_without_an_origin_nothing_is_a_preflight(
    gateway: Gateway, path: str, method: str, status: int, origin: dict[str, str]
) -> None:
    answer = gateway.request("OPTIONS", path, headers={"access-control-request-method": method, **origin})
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["x-gateway-reason"] == answer.json()["reason"] == "method_not_allowed"


def test_preflights_cost_no_limit(gateway: Gateway) -> None:
    for origin in (SHOP, FOREIGN) * 3:
        _preflight(gateway, "/limited", origin)
    assert gateway.get("/limited", headers={"origin": SHOP}).status_code == 200
    limited = gateway.get("/limited", headers={"origin": SHOP})
    assert limited.status_code == 429
    assert _readable(limited)


def test_without_cors_nothing_is_said_and_preflights_go_on(gateway: Gateway, backend: Backend) -> None:
    backend.seen.clear()
    answer = _preflight(gateway, "/without", FOREIGN)
    assert answer.status_code == 200
    assert len(backend.seen) == 1
    assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


def test_an_answer_for_every_origin_is_one_answer(gateway: Gateway) -> None:
    for headers in ({}, {"origin": FOREIGN}):
        assert "vary" not in gateway.get("/all", headers=headers).headers
    assert gateway.get("/all", headers={"origin": FOREIGN}).headers["access-control-allow-origin"] == "*"
    answer = _preflight(gateway, "/all", FOREIGN, "PURGE", access_control_request_headers="x-a, x-b")
    assert answer.headers["access-control-allow-methods"] == "PURGE"
    assert answer.headers["access-control-allow-headers"] == "x-a, x-b"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.shop.test", True),
        ("https://a.b-c.shop.test", True),
        ("https://shop.test", False),
        ("https://.shop.test", False),
        ("https://a..shop.test", False),
        ("https://evilshop.test", False),
        ("https://evil.test/.shop.test", False),
        ("https://evil.test:1.shop.test", False),
        ("https://user@a.shop.test", False),
        ("https://a.shop.test:8443", False),
        ("https://a.shop.test.evil.test", False),
        ("http://a.shop.test", False),
        ("https://a.port.test:8443", True),
        ("https://a.port.test", False),
        ("http://local.test:3000", True),
        ("http://local.test:3001", False),
        ("capacitor://localhost", True),
        ("capacitor://localhost2", False),
        ("ionic://localhost", True),
        ("chrome-extension://abcdefghijklmnop", True),
        ("http://[::1]:3000", True),
        ("null", True),
        ("HTTPS://A.SHOP.TEST", False),
        ("*", False),
    ],
)
def test_origins(gateway: Gateway, origin: str, allowed: bool) -> None:
    for answer in (gateway.get("/many", headers={"origin": origin}), _preflight(gateway, "/many", origin)):
        assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
    assert _preflight(gateway, "/many", origin).status_code == (200 if allowed else 403)


def test_the_upstream_does_not_allow_what_the_gateway_does_not(gateway: Gateway, backend: Backend) -> None:
    backend.headers = {"access-control-allow-origin": "*", "vary": "Accept, origin"}
    try:
        allowed = gateway.get("/forward", headers={"origin": SHOP})
        foreign = gateway.get("/forward", headers={"origin": FOREIGN})
    finally:
        backend.headers = {}
    assert allowed.headers.get_list("access-control-allow-origin") == [SHOP]
    assert "access-control-allow-origin" not in foreign.headers
    assert allowed.headers["vary"] == foreign.headers["vary"] == "Accept, origin"


def test_grpc_web_brings_its_headers(gateway: Gateway) -> None:
    answer = _preflight(gateway, "/web", SHOP, "POST")
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert allowed == ["X-User-Agent", "x-own", "content-type", "grpc-timeout", "x-grpc-web"]
    exposed = gateway.get("/web", headers={"origin": SHOP}).headers["access-control-expose-headers"]
    assert exposed.split(", ") == ["grpc-message", "grpc-status", "grpc-status-details-bin"]


def test_a_404_is_readable_whatever_the_host(gateway: Gateway) -> None:
    port = gateway.compiled.gateway.sections.listeners["exact"].port
    for host, path in (("api.test", "/none"), ("other.test", "/")):
        answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers={"host": host, "origin": SHOP})
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (404, "not_found")
        assert answer.json()["title"] == "No route matches this request"
        assert _readable(answer)
