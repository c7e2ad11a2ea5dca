"""Credentials in the real Envoy: one table of keys, passwords and tokens, alone and together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.gateway import Gateway, write
from tests.support.identity_cases import (
    CONSUMERS,
    CREDENTIAL_CASES,
    CREDENTIAL_ROUTES,
    HTPASSWD,
    PROVIDERS,
    Case,
)
from tests.support.identity_requests import expect, send
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("credentials")
    (folder / "jwks.json").write_text(tokens.jwks())
    (folder / "htpasswd").write_text(HTPASSWD)
    with Backend("echo") as echo:
        text = f"""
listeners: {{http: {{port: {free_port()}, underscores_in_headers: allow, access_log: true}}}}
upstreams: {{echo: {{endpoints: [{echo.address}]}}}}
{PROVIDERS}{CONSUMERS}
routes:{CREDENTIAL_ROUTES}
"""
        with Gateway(write(folder, gateway=text), folder) as running:
            yield running


@pytest.mark.parametrize("case", CREDENTIAL_CASES, ids=lambda case: case.name)
def test_a_credential_names_its_consumer_or_is_refused_by_name(gateway: Gateway, case: Case) -> None:
    expect(case, send(gateway.url, case))
