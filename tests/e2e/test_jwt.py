"""jwt in the real Envoy: every token that must pass, and every one that must not, with status, reason and challenge."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.folder import filled
from tests.support.gateway import Gateways
from tests.support.identity_cases import JWT_CASES, JWT_ROUTES, PROVIDERS, Case
from tests.support.identity_requests import expect, send
from tests.support.ports import free_port
from tests.support.wait import wait_for

REMOTE = """
  remote$number: {issuer: $issuer, jwks: {url: "http://$address/jwks", timeout: $timeout}}"""
REMOTE_ROUTE = """
  remote$number: {path: /remote/$number, upstream: echo, policies: {jwt: remote$number}}"""
GOOD, DOWN, GARBAGE, HUGE, SLOW, MENDED = range(6)


@pytest.fixture(scope="module")
def issuers() -> Iterator[dict[int, Backend]]:
    """Servers of key sets, one for each way to fail."""
    servers = {number: Backend(f"issuer{number}") for number in (GOOD, GARBAGE, HUGE, SLOW, MENDED)}
    servers[GOOD].body = tokens.jwks().encode()
    servers[GARBAGE].body = servers[MENDED].body = b"<html>busy</html>"
    servers[HUGE].body = b'{"keys": ["' + b"x" * 20_000_000 + b'"]}'
    servers[SLOW].release = threading.Event()
    for server in servers.values():
        server.start()
    yield servers
    servers[SLOW].release.set()
    for server in servers.values():
        server.stop()


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
$providers$remotes
routes:$routes
"""


@pytest.fixture(scope="module")
def url(gateways: Gateways, backend: Backend, issuers: dict[int, Backend]) -> str:
    addresses = {DOWN: f"127.0.0.1:{free_port()}", **{key: one.address for key, one in issuers.items()}}
    remotes = "".join(
        filled(
            REMOTE,
            number=number,
            issuer=tokens.ISSUER,
            address=address,
            timeout="500ms" if number == SLOW else "10s",
        )
        for number, address in addresses.items()
    )
    gateway = gateways.start(
        YAML,
        files={"jwks.json": tokens.jwks()},
        echo=backend.address,
        providers=PROVIDERS,
        remotes=remotes,
        routes=JWT_ROUTES + "".join(filled(REMOTE_ROUTE, number=number) for number in addresses),
    )
    return gateway.url


@pytest.mark.parametrize("case", JWT_CASES, ids=lambda case: case.name)
def test_a_token_passes_or_is_refused_by_name(url: str, case: Case) -> None:
    expect(case, send(url, case))


def test_the_upstream_sees_no_token_that_is_not_forwarded(url: str) -> None:
    tested = Case(name="", path=f"/partner?a=1&token={_partner()}&b=2", status=200)
    answer = send(url, tested)
    expect(tested, answer)
    assert "token" not in answer.json()["path"]
    assert "a=1" in answer.json()["path"]


def _partner() -> str:
    return tokens.token(iss="https://partner.test")


def test_keys_are_fetched_and_cached(url: str, issuers: dict[int, Backend]) -> None:
    for _ in range(5):
        assert _remote(url, GOOD).status_code == 200
    assert len(issuers[GOOD].seen) == 1


@pytest.mark.parametrize("number", [DOWN, GARBAGE, HUGE, SLOW], ids=["down", "garbage", "huge", "slow"])
def test_keys_that_cannot_be_had_close_the_route_and_no_other(url: str, number: int) -> None:
    answer = _remote(url, number)
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "jwks_unavailable")
    assert httpx.get(f"{url}/open").status_code == 200


def test_keys_that_come_back_open_the_route(url: str, issuers: dict[int, Backend]) -> None:
    assert _remote(url, MENDED).status_code == 503
    issuers[MENDED].body = tokens.jwks().encode()
    wait_for(lambda: _remote(url, MENDED).status_code == 200, "the keys to be fetched again")


def _remote(url: str, number: int) -> httpx.Response:
    headers = {"authorization": f"Bearer {tokens.token()}"}
    return httpx.get(f"{url}/remote/{number}", headers=headers, timeout=20)
