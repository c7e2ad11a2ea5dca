"""Credentials in the real Envoy: one table of keys, passwords and tokens, alone and together."""

from __future__ import annotations

import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import (
    CONSUMERS,
    CREDENTIAL_CASES,
    CREDENTIAL_ROUTES,
    HTPASSWD,
    PROVIDERS,
    Case,
)
from tests.support.identity_requests import expect, send

YAML = """
listeners: {http: {port: $port, underscores_in_headers: allow, access_log: true}}
upstreams: {echo: {endpoints: [$echo]}}
$providers$consumers
routes:$routes
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(
        YAML,
        files={"jwks.json": tokens.jwks(), "htpasswd": HTPASSWD},
        echo=backend.address,
        providers=PROVIDERS,
        consumers=CONSUMERS,
        routes=CREDENTIAL_ROUTES,
    )


@pytest.mark.parametrize("case", CREDENTIAL_CASES, ids=lambda case: case.name)
def test_a_credential_names_its_consumer_or_is_refused_by_name(gateway: Gateway, case: Case) -> None:
    expect(case, send(gateway.url, case))
