"""The first policies through a real Envoy: what the client and the backend saw."""

from __future__ import annotations

import uuid

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port

YAML = """
listeners:
  http: {port: $port, address: 127.0.0.1, trusted_proxies: 1}
  trusting: {port: $trusting, address: 127.0.0.1, trust_request_id: true}
upstreams:
  echo: {endpoints: ["$echo"]}
policies:
  request_id: true
routes:
  headers:
    path: /headers
    upstream: echo
    policies:
      request_headers: {set: {x-set: new, x-share: 100%%}, add: {x-add: more}, remove: [x-secret]}
      response_headers:
        set: {server-name: "%REQ(:AUTHORITY)%"}
        add: {x-more: "2"}
        remove: [x-powered-by]
  shorthand: {path: /shorthand, upstream: echo, request_headers: {set: {x-set: short}}}
  nobody: {path: /nobody, upstream: echo, policies: {request_id: off}}
  denied: {path: /denied, upstream: echo, policies: {ip_access: {deny: [203.0.113.0/24]}}}
  allowed:
    path: /allowed
    upstream: echo
    policies: {ip_access: {allow: [198.51.100.0/24, "2001:db8::/32"], deny: [198.51.100.66]}}
  compressed: {path: /compressed, upstream: echo, policies: {compression: true}}
  gzip: {path: /gzip, upstream: echo, policies: {compression: {algorithms: [gzip]}}}
  abort: {path: /abort, upstream: echo, policies: {fault: {abort: 418}}}
  abort-200: {path: /abort/200, upstream: echo, policies: {fault: {abort: 200}}}
  abort-204: {path: /abort/204, upstream: echo, policies: {fault: {abort: 204}}}
  sometimes: {path: /sometimes, upstream: echo, policies: {fault: {abort: 503, header: x-fail}}}
  csrf: {path: /csrf, upstream: echo, policies: {csrf: {hosts: [shop.test, "*.shop.test", "local.test:3000"]}}}
  slow: {path: /slow, upstream: echo, policies: {fault: {delay: {duration: 1ms}}}}
"""


@pytest.fixture(scope="module")
def echo(backend: Backend) -> Backend:
    backend.headers = {"x-gateway-reason": "spoofed", "x-powered-by": "something", "x-more": "1"}
    return backend


@pytest.fixture(scope="module")
def trusting() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, echo: Backend, trusting: int) -> Gateway:
    return gateways.start(YAML, trusting=trusting, echo=echo.address)


def _from(address: str) -> dict[str, str]:
    return {"x-forwarded-for": address}


def test_request_headers_are_set_added_and_removed(gateway: Gateway, echo: Backend) -> None:
    sent = {"x-set": "old", "x-add": "one", "x-secret": "s"}
    seen = gateway.get("/headers", headers=sent).json()
    assert seen["headers"]["x-set"] == "new"
    assert seen["headers"]["x-share"] == "100%"
    assert [value for name, value in seen["header_list"] if name == "x-add"] == ["one", "more"]
    assert "x-secret" not in seen["headers"]


def test_response_headers_are_set_added_and_removed(gateway: Gateway) -> None:
    answer = gateway.get("/headers")
    assert answer.headers["server-name"] == f"127.0.0.1:{gateway.port}"
    assert answer.headers.get_list("x-more") == ["1", "2"]
    assert "x-powered-by" not in answer.headers


def test_an_upstream_cannot_speak_for_the_gateway(gateway: Gateway) -> None:
    assert "x-gateway-reason" not in gateway.get("/shorthand").headers


def test_headers_may_stand_on_the_route_itself(gateway: Gateway) -> None:
    assert gateway.get("/shorthand").json()["headers"]["x-set"] == "short"


def test_client_and_upstream_are_told_the_same_request_id(gateway: Gateway) -> None:
    answer = gateway.get("/shorthand")
    assert str(uuid.UUID(answer.headers["x-request-id"])) == answer.json()["headers"]["x-request-id"]


def test_a_route_may_keep_the_request_id_from_the_client(gateway: Gateway) -> None:
    assert "x-request-id" not in gateway.get("/nobody").headers


def test_a_clients_own_request_id_is_kept_only_where_the_listener_trusts_it(
    gateway: Gateway, trusting: int
) -> None:
    mine = {"x-request-id": "0b3a1f0e-5c1d-4c0e-9b7a-111111111111"}
    assert gateway.get("/nobody", headers=mine).json()["headers"]["x-request-id"] != mine["x-request-id"]
    kept = httpx.get(f"http://127.0.0.1:{trusting}/nobody", headers=mine)
    assert kept.json()["headers"]["x-request-id"] == mine["x-request-id"]


@pytest.mark.parametrize(
    ("path", "address", "status"),
    [
        ("/denied", "203.0.113.9", 403),
        ("/denied", "203.0.114.9", 200),
        ("/denied", "::ffff:203.0.113.9", 403),
        ("/denied", "::ffff:203.0.114.9", 200),
        ("/allowed", "::ffff:198.51.100.7", 200),
        ("/allowed", "::ffff:192.0.2.1", 403),
        ("/allowed", "198.51.100.7", 200),
        ("/allowed", "2001:db8::7", 200),
        ("/allowed", "198.51.100.66", 403),
        ("/allowed", "192.0.2.1", 403),
    ],
)
def test_addresses_are_allowed_and_denied(gateway: Gateway, path: str, address: str, status: int) -> None:
    answer = gateway.get(path, headers=_from(address))
    assert answer.status_code == status
    if status == 403:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-gateway-reason"] == "ip_denied"
        assert answer.json()["reason"] == "ip_denied"


def test_a_client_cannot_choose_its_address_beyond_the_trusted_proxy(gateway: Gateway) -> None:
    answer = gateway.get("/denied", headers=_from("192.0.2.1, 203.0.113.9"))
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("path", "accepted", "encoding"),
    [
        ("/compressed", "gzip", "gzip"),
        ("/compressed", "br", "br"),
        ("/compressed", "zstd", "zstd"),
        ("/compressed", "gzip, deflate, br, zstd", "zstd"),
        ("/compressed", "gzip, br", "br"),
        ("/compressed", "br, gzip", "br"),
        ("/compressed", "*", "zstd"),
        ("/compressed", "gzip;q=1, br;q=0.5", "gzip"),
        ("/compressed", "identity", None),
        ("/gzip", "br, gzip", "gzip"),
        ("/gzip", "br", None),
        ("/shorthand", "gzip", None),
    ],
)
def test_bodies_are_compressed_as_the_client_prefers(
    gateway: Gateway, path: str, accepted: str, encoding: str | None
) -> None:
    headers = {"accept-encoding": accepted, "x-long": "long-" * 200}
    with gateway.client() as client, client.stream("GET", path, headers=headers) as answer:
        assert answer.headers.get("content-encoding") == encoding
        body = b"".join(answer.iter_raw())
    assert body
    assert (b"long-long" in body) == (encoding is None)


def test_a_fault_fails_on_purpose_and_says_so(gateway: Gateway, echo: Backend) -> None:
    before = len(echo.seen)
    answer = gateway.get("/abort")
    assert answer.status_code == 418
    assert answer.json()["reason"] == "fault_injected"
    assert len(echo.seen) == before


def test_a_fault_says_so_with_every_status(gateway: Gateway) -> None:
    answer = gateway.get("/abort/200")
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (200, "fault_injected")
    assert answer.json()["reason"] == "fault_injected"
    answer = gateway.get("/abort/204")
    assert (answer.status_code, answer.headers["x-gateway-reason"], answer.content) == (
        204,
        "fault_injected",
        b"",
    )


def test_a_fault_may_be_for_requests_with_a_header_only(gateway: Gateway) -> None:
    assert gateway.get("/sometimes").status_code == 200
    assert gateway.get("/sometimes", headers={"x-fail": "please"}).status_code == 503


def test_a_delayed_request_arrives(gateway: Gateway) -> None:
    before = gateway.envoy.stats(r"^http\..*fault.delays_injected")
    assert gateway.get("/slow").status_code == 200
    after = gateway.envoy.stats(r"^http\..*fault.delays_injected")
    assert sum(after.values()) == sum(before.values()) + 1


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"origin": "https://evil.test"}, 200),
        ("POST", {"origin": "https://api.test"}, 200),
        ("POST", {"origin": "https://shop.test"}, 200),
        ("POST", {"origin": "https://a.b.shop.test"}, 200),
        ("POST", {"origin": "http://local.test:3000"}, 200),
        ("POST", {"referer": "https://shop.test/page?x=1"}, 200),
        ("POST", {}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": "https://evil.test"}, 403),
        ("POST", {"origin": "https://evilshop.test"}, 403),
        ("POST", {"origin": "https://api.test.evil.test"}, 403),
        ("POST", {"origin": "https://shop.test@evil.test"}, 403),
        ("POST", {"origin": "http://local.test:3001"}, 403),
        ("POST", {"referer": "https://evil.test/shop.test"}, 403),
        ("PUT", {"origin": "https://evil.test"}, 403),
        ("PATCH", {"origin": "https://evil.test"}, 403),
        ("DELETE", {"origin": "https://evil.test"}, 403),
    ],
)
def test_pages_of_other_hosts_change_nothing(
    gateway: Gateway, echo: Backend, method: str, headers: dict[str, str], status: int
) -> None:
    before = len(echo.seen)
    answer = gateway.request(method, "/csrf", headers={"host": "api.test", **headers})
    assert answer.status_code == status
    assert len(echo.seen) - before == (status == 200)
    if status == 403:
        assert answer.json()["reason"] == answer.headers["x-gateway-reason"] == "csrf_denied"
