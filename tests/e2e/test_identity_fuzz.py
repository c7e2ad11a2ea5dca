"""Whatever a client sends as its credentials: nobody is let in by accident, and the identity script never fails."""

from __future__ import annotations

import base64
import http.client

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import ACME, CONSUMERS, PROVIDERS

ROUTES = """
  any:
    path: /any
    upstream: echo
    policies: {api_key: {header: x-api-key, query: key, cookie: key}, basic_auth: true, jwt: [corp, partner]}
  pages:
    path: /pages
    methods: [GET]
    upstream: echo
    policies: {jwt: corp, cors: {allow_origins: ["https://shop.test"]}}
  free: {path: /free, upstream: echo, policies: {api_key: off, jwt: off, basic_auth: off}}
  inherited: {path: /inherited, upstream: echo}
"""
PIECES = st.sampled_from(
    [
        b"key=",
        b"&",
        b";",
        b"=",
        b"%",
        b"%00",
        b"%6",
        b"Bearer ",
        b"bearer ",
        b"Basic ",
        b"eyJ",
        b".",
        b",",
        b" ",
        b'"',
        b"\t",
        b"\xff",
        b"\xc3\xbc",
        b"YWNtZTo=",
        b"x" * 300,
        b" " * 5000,
        b"acme",
        b"[==[",
        b"]==]",
        b"%c",
        b"(.-)",
        b"session=",
    ]
)
VALUE = st.lists(PIECES, max_size=8).map(b"".join)
NAMES = st.sampled_from(["x-api-key", "authorization", "cookie", "x-token", "x-consumer", "x-user-id"])


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
policies: {api_key: true}
$providers$consumers
routes:$routes
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(
        YAML,
        files={"jwks.json": tokens.jwks()},
        echo=backend.address,
        providers=PROVIDERS,
        consumers=CONSUMERS,
        routes=ROUTES,
    )


def _ask(gateway: Gateway, path: str, headers: list[tuple[str, bytes]]) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    try:
        connection.putrequest("GET", path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers.get("x-gateway-reason")
    finally:
        connection.close()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(NAMES, VALUE), max_size=4), st.lists(PIECES, max_size=4).map(b"".join))
def test_no_credential_that_nobody_has_lets_anybody_in(
    gateway: Gateway, headers: list[tuple[str, bytes]], query: bytes
) -> None:
    safe = query.decode("latin-1").replace(" ", "+").replace("\t", "+")
    path = "/any?" + "".join(one if " " < one <= "~" else "%" + one.encode("latin-1").hex() for one in safe)
    status, reason = _ask(gateway, path, headers)
    assert status in (400, 401, 431), (status, reason)
    assert reason != "identity_failed"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(["cookie", "x-consumer", "x-user-id", "x-token"]), VALUE), max_size=3)
)
def test_a_good_key_is_good_whatever_stands_beside_it(
    gateway: Gateway, headers: list[tuple[str, bytes]]
) -> None:
    assert _ask(gateway, "/any", [*headers, ("x-api-key", ACME.encode())]) in (
        (200, None),
        (431, "headers_too_large"),
    )


@pytest.mark.parametrize("name", ["cookie", "authorization", "x-api-key"])
@pytest.mark.parametrize(
    "value", [b"key=" + b" " * 50_000 + b"x", b"Basic " + b"A" * 50_000, b'key="' * 10_000]
)
def test_a_value_made_to_be_slow_is_refused_like_any_other(gateway: Gateway, name: str, value: bytes) -> None:
    assert _ask(gateway, "/any", [(name, value)])[0] == 401


def test_a_password_may_hold_any_byte_and_is_still_wrong(gateway: Gateway) -> None:
    for password in (b"\x00", b"\xff\xfe", b":" * 100, b"%s%n"):
        encoded = base64.b64encode(b"acme:" + password)
        assert _ask(gateway, "/any", [("authorization", b"Basic " + encoded)]) == (401, "basic_auth_wrong")


def test_a_policy_of_all_routes_holds_unless_a_route_takes_it_away(gateway: Gateway) -> None:
    assert gateway.get("/inherited").status_code == 401
    free = gateway.get("/free", headers={"x-consumer": "root", "x-user-id": "root"})
    assert free.status_code == 200
    assert not {"x-consumer", "x-user-id"} & set(free.json()["headers"])


def test_a_preflight_needs_no_credential_and_nothing_else_is_a_preflight(gateway: Gateway) -> None:
    asked = {"origin": "https://shop.test", "access-control-request-method": "GET"}
    preflight = httpx.options(f"{gateway.url}/pages", headers=asked)
    assert preflight.status_code == 200, (preflight.headers, preflight.text)
    assert preflight.headers["access-control-allow-origin"] == "https://shop.test"
    refused = httpx.get(f"{gateway.url}/pages", headers={"origin": "https://shop.test"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://shop.test", "a page may read why"
    stranger = httpx.options(f"{gateway.url}/pages", headers={**asked, "origin": "https://evil.test"})
    assert (stranger.status_code, "access-control-allow-origin" in stranger.headers) == (403, False)
    assert httpx.options(f"{gateway.url}/pages").status_code == 405
