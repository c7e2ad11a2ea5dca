"""validate in the real Envoy: what is malformed for its route is refused with 400, 413 or 415."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways

ROUTES = """
  headers: {path: /headers, upstream: echo, policies: {validate: {required_headers: [X-Tenant, x-trace]}}}
  types:
    path: /types
    upstream: echo
    policies: {validate: {content_types: [application/json, application/*+json, "image/*"]}}
  size: {path: /size, upstream: echo, policies: {validate: {max_body: 1000}}}
  all:
    path: /all
    upstream: echo
    policies: {validate: {required_headers: [x-tenant], content_types: [text/plain], max_body: 10}}
  first: {path: /first, upstream: echo, policies: {validate: {required_headers: [x-tenant]}, api_key: true}}
  pages:
    path: /pages
    upstream: echo
    policies: {validate: {required_headers: [x-tenant]}, cors: {allow_origins: ["https://shop.test"]}}
  off: {path: /off, upstream: echo}
"""
BOTH = {"x-tenant": "a", "x-trace": "b"}
PREFLIGHT = {"origin": "https://shop.test", "access-control-request-method": "GET"}


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
consumers: {acme: {api_keys: [{sha256: "$digest"}]}}
routes:$routes
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(YAML, echo=backend.address, digest="a" * 64, routes=ROUTES)


def _typed(value: str) -> dict[str, str]:
    return {"content-type": value}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "outcome"),
    [
        ("GET", "/headers", BOTH, None, (200, None)),
        ("GET", "/headers", {"X-TENANT": "a", "X-Trace": "b"}, None, (200, None)),
        ("GET", "/headers", {"x-tenant": "a"}, None, (400, "missing_header")),
        ("GET", "/headers", {"x-tenant": "a", "x-trace": ""}, None, (400, "missing_header")),
        ("GET", "/headers", {}, None, (400, "missing_header")),
        ("POST", "/types", _typed("application/json"), b"{}", (200, None)),
        ("POST", "/types", _typed("Application/JSON; charset=utf-8"), b"{}", (200, None)),
        ("POST", "/types", _typed("application/problem+json"), b"{}", (200, None)),
        ("POST", "/types", _typed("image/png"), b"x", (200, None)),
        ("POST", "/types", _typed("application/jsonp"), b"{}", (415, "unsupported_media_type")),
        ("POST", "/types", _typed("text/json"), b"{}", (415, "unsupported_media_type")),
        ("POST", "/types", _typed("xapplication/json"), b"{}", (415, "unsupported_media_type")),
        ("POST", "/types", _typed("text/plain, application/json"), b"{}", (415, "unsupported_media_type")),
        ("POST", "/types", _typed("application/json; a, text/plain"), b"{}", (415, "unsupported_media_type")),
        ("POST", "/types", _typed(""), b"{}", (415, "unsupported_media_type")),
        ("POST", "/types", {}, b"{}", (415, "unsupported_media_type")),
        ("DELETE", "/types", {}, b"{}", (415, "unsupported_media_type")),
        ("PUT", "/types", {}, iter([b"{}"]), (415, "unsupported_media_type")),
        ("POST", "/types", {}, b"", (200, None)),
        ("GET", "/types", {}, None, (200, None)),
        ("POST", "/size", {}, b"x" * 1000, (200, None)),
        ("POST", "/size", {}, b"x" * 1001, (413, "body_too_large")),
        ("POST", "/size", {}, iter([b"x" * 1000]), (200, None)),
        ("POST", "/size", {}, iter([b"x" * 600, b"x" * 600]), (413, "body_too_large")),
        ("POST", "/all", {"x-tenant": "a", "content-type": "text/plain"}, b"x", (200, None)),
        ("POST", "/all", {"content-type": "text/plain"}, b"x", (400, "missing_header")),
        ("GET", "/first", {}, None, (400, "missing_header")),
        ("GET", "/first", {"x-tenant": "a"}, None, (401, "api_key_missing")),
        ("GET", "/pages", {}, None, (400, "missing_header")),
        ("OPTIONS", "/pages", PREFLIGHT, None, (200, None)),
        ("POST", "/off", {}, b"x" * 2000, (200, None)),
    ],
)
def test_what_is_malformed_for_its_route_is_refused(
    gateway: Gateway,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | Iterator[bytes] | None,
    outcome: tuple[int, str | None],
) -> None:
    answer = gateway.request(method, path, headers=headers, content=body)
    assert (answer.status_code, answer.headers.get("x-gateway-reason")) == outcome
    if outcome[1] is not None:
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.putrequest("POST", "/size")
    connection.putheader("content-length", "1000000000")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
