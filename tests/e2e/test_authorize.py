"""authorize in the real Envoy: one table of callers who may and who may not, and nothing told to those who may not."""

from __future__ import annotations

import httpx
import pytest

from tests.support import tokens
from tests.support.authorize_cases import AUTHORIZE_CASES, AUTHORIZE_ROUTES
from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import CONSUMERS, PROVIDERS, Case
from tests.support.identity_requests import expect, send

YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
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
        routes=AUTHORIZE_ROUTES,
    )


@pytest.mark.parametrize("case", AUTHORIZE_CASES, ids=lambda case: case.name)
def test_who_is_named_may_and_nobody_else(gateway: Gateway, case: Case) -> None:
    expect(case, send(gateway.url, case))


def test_a_refusal_tells_nothing_of_the_rule(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {tokens.token(scope='openid')}"}
    answer = httpx.get(f"{gateway.url}/read", headers=headers)
    assert set(answer.json()) == {"type", "title", "status", "reason", "request_id"}
    assert not any(word in str((answer.text, answer.headers)) for word in ("users.read", "scope", "rbac"))


def test_a_shadow_counts_what_it_would_refuse(gateway: Gateway) -> None:
    pattern = r"rbac\.authorize\.shadow_denied"
    before = sum(gateway.envoy.stats(pattern).values())
    headers = {"authorization": f"Bearer {tokens.token()}"}
    assert httpx.get(f"{gateway.url}/shadow", headers=headers).status_code == 200
    assert sum(gateway.envoy.stats(pattern).values()) == before + 1
