"""mtls in the real Envoy: the certificate that a client shows names its consumer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.certificates import Authority
from tests.support.gateway import Gateway, write
from tests.support.identity_cases import CONSUMERS, PROVIDERS
from tests.support.ports import free_port

ROUTES = """
  strict: {path: /strict, upstream: echo, policies: {mtls: true}}
  signed: {path: /signed, upstream: echo, policies: {mtls: {consumers_only: false}}}
  optional: {path: /optional, upstream: echo, policies: {mtls: {optional: true}}}
  either: {path: /either, upstream: echo, policies: {mtls: true, api_key: true}}
  both: {path: /both, upstream: echo, policies: {mtls: true, jwt: corp, authentication: all}}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mtls"))


@pytest.fixture(scope="module")
def gateway(authority: Authority) -> Iterator[Gateway]:
    folder = authority.folder
    (folder / "jwks.json").write_text(tokens.jwks())
    authority.sign("server", "127.0.0.1")
    with Backend("echo") as echo:
        text = f"""
listeners:
  https:
    port: {free_port()}
    tls: {{certificates: [server], client_certificate: {{ca: {{file: ca.crt}}, required: false}}}}
secrets: {{server: {{certificate: {{file: server.crt}}, private_key: {{file: server.key}}}}}}
upstreams: {{echo: {{endpoints: [{echo.address}]}}}}
{PROVIDERS}{CONSUMERS}
routes:{ROUTES}
"""
        with Gateway(write(folder, gateway=text), folder, scheme="https") as running:
            yield running


def _get(
    gateway: Gateway, authority: Authority, path: str, *pair: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    return httpx.get(gateway.url + path, verify=authority.client(*pair), headers=headers, timeout=30)


def _outcome(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    consumer = answer.json()["headers"].get("x-consumer") if answer.status_code == 200 else None
    return answer.status_code, answer.headers.get("x-gateway-reason"), consumer


@pytest.mark.parametrize(
    ("path", "names", "outcome"),
    [
        ("/strict", ["spiffe://test/acme"], (200, None, "acme")),
        ("/strict", ["other.test", "globex.test"], (200, None, "globex")),
        ("/strict", ["other.test"], (401, "certificate_unknown", None)),
        ("/strict", ["acme"], (401, "certificate_unknown", None)),
        ("/strict", [], (401, "certificate_missing", None)),
        ("/signed", ["other.test"], (200, None, None)),
        ("/signed", ["globex.test"], (200, None, "globex")),
        ("/optional", [], (200, None, None)),
        ("/optional", ["other.test"], (401, "certificate_unknown", None)),
        ("/either", ["globex.test"], (200, None, "globex")),
        ("/either", [], (401, "credentials_missing", None)),
        ("/both", ["globex.test"], (401, "jwt_missing", None)),
    ],
)
def test_a_name_of_the_certificate_names_the_consumer(
    gateway: Gateway, authority: Authority, path: str, names: list[str], outcome: tuple[object, ...]
) -> None:
    pair = authority.sign("client", *names) if names else ()
    assert _outcome(_get(gateway, authority, path, *pair)) == outcome


def test_a_token_of_another_consumer_does_not_go_with_a_certificate(
    gateway: Gateway, authority: Authority
) -> None:
    pair = authority.sign("client", "globex.test")
    for azp, outcome in (("acme-app", (401, "consumers_differ", None)), ("x", (200, None, "globex"))):
        headers = {"authorization": f"Bearer {tokens.token(azp=azp)}"}
        assert _outcome(_get(gateway, authority, "/both", *pair, headers=headers)) == outcome


def test_a_refusal_of_a_certificate_says_what_is_needed(gateway: Gateway, authority: Authority) -> None:
    assert _get(gateway, authority, "/strict").headers["www-authenticate"] == 'Certificate realm="gateway"'


@pytest.mark.parametrize("kind", ["expired", "of a stranger"])
def test_a_certificate_that_the_authority_does_not_vouch_for_never_reaches_a_route(
    gateway: Gateway, authority: Authority, tmp_path: Path, kind: str
) -> None:
    if kind == "expired":
        pair = authority.sign("client", "spiffe://test/acme", days=-1)
    else:
        pair = Authority(tmp_path, "stranger").sign("client", "spiffe://test/acme")
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        _get(gateway, authority, "/strict", *pair)
