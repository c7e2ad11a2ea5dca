"""oidc: what a login needs, and which headers keep a request from being sent to log in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from filters.identity.api_key import ApiKeySettings
from filters.identity.jwt import JwtSettings
from filters.identity.oidc import FILTER, Oidc, OidcSettings
from filters.language.datasource import SecretSource
from filters.model.identity import Jwks, OidcClient, Provider
from filters.policy import Context

JWKS = Jwks(inline='{"keys": [{"kty": "RSA"}]}')
SESSION = SecretSource(file="session")
CLIENT = OidcClient(
    client_id="shop",
    client_secret=SecretSource(file="client"),
    session_secret=SESSION,
    authorization_endpoint="https://idp.test/authorize",
    token_endpoint="https://idp.test/token",
)
SETTINGS = OidcSettings(provider="corp")
CONTEXT = Context(
    providers={"corp": Provider(jwks=JWKS, oidc=CLIENT), "plain": Provider(jwks=JWKS)},
    contents={JWKS: b'{"keys": [{"kty": "RSA"}]}', SESSION: b"s" * 32},
    effective={"oidc": SETTINGS},
)


def _login(context: Context) -> Any:
    part: Any = Oidc().on_route(SETTINGS, context)
    return part.filter_configs[FILTER].config


def test_a_provider_needs_a_client_and_a_long_secret() -> None:
    assert not list(Oidc().check(SETTINGS, CONTEXT))
    assert len(list(Oidc().check(OidcSettings(provider="plain"), CONTEXT))) == 1
    short = replace(CONTEXT, contents={**CONTEXT.contents, SESSION: b"s" * 31 + b"\n"})
    assert len(list(Oidc().check(SETTINGS, short))) == 1


@pytest.mark.parametrize(
    ("effective", "names"),
    [
        ({}, []),
        ({"jwt": JwtSettings(provider="plain")}, ["authorization"]),
        ({"api_key": ApiKeySettings()}, ["x-api-key"]),
        ({"api_key": ApiKeySettings(query="key")}, []),
        ({"api_key": ApiKeySettings(), "authentication": "all"}, []),
    ],
)
def test_another_credential_keeps_a_request_from_being_sent_to_log_in(
    effective: dict[str, Any], names: list[str]
) -> None:
    login = _login(replace(CONTEXT, effective={"oidc": SETTINGS, **effective}))
    assert [one.name for one in login.pass_through_matcher] == names


def test_secrets_come_by_reference() -> None:
    credentials = _login(CONTEXT).credentials
    assert credentials.token_secret.name == "identity/corp/client-secret"
    assert credentials.hmac_secret.name == "identity/corp/session-secret"


def test_the_way_back_and_the_way_out_stand_beside_the_route() -> None:
    part = Oidc().on_route(SETTINGS, CONTEXT)
    assert part.own_paths == ("/_oidc/corp/callback", "/_oidc/corp/logout")
