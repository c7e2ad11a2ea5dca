"""mtls in the real Envoy: the certificate that a client shows names its consumer."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.certificates import Authority, authority
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import CONSUMERS, PROVIDERS
from tests.support.tls import client_context, write_pair

ROUTES = """
  strict: {path: /strict, upstream: echo, policies: {mtls: true}}
  signed: {path: /signed, upstream: echo, policies: {mtls: {consumers_only: false}}}
  optional: {path: /optional, upstream: echo, policies: {mtls: {optional: true}}}
  either: {path: /either, upstream: echo, policies: {mtls: true, api_key: true}}
  both: {path: /both, upstream: echo, policies: {mtls: true, jwt: corp, authentication: all}}
"""


YAML = """
listeners:
  https:
    port: $port
    tls: {certificates: [server], client_certificate: {ca: {file: ca.crt}, required: false}}
secrets: {server: {certificate: {file: server.crt}, private_key: {file: server.key}}}
upstreams: {echo: {endpoints: [$echo]}}
$providers$consumers
routes:$routes
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    certificate, key = authority().issue("127.0.0.1")
    return gateways.start(
        YAML,
        files={
            "ca.crt": authority().pem,
            "jwks.json": tokens.jwks(),
            "server.crt": certificate,
            "server.key": key,
        },
        scheme="https",
        echo=backend.address,
        providers=PROVIDERS,
        consumers=CONSUMERS,
        routes=ROUTES,
    )


def _get(gateway: Gateway, path: str, *files: str, headers: dict[str, str] | None = None) -> httpx.Response:
    context = client_context(authority(), *files)
    return httpx.get(gateway.url + path, verify=context, headers=headers, timeout=30)


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
    gateway: Gateway, tmp_path: Path, path: str, names: list[str], outcome: tuple[object, ...]
) -> None:
    files = write_pair(tmp_path, "client", authority().issue(*names)) if names else ()
    assert _outcome(_get(gateway, path, *files)) == outcome


def test_a_name_of_another_kind_stands_for_nobody(gateway: Gateway, tmp_path: Path) -> None:
    uri = x509.UniformResourceIdentifier("globex.test")
    files = write_pair(tmp_path, "client", authority().issue("other.test", uri))
    assert _outcome(_get(gateway, "/strict", *files)) == (401, "certificate_unknown", None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_would_resume_its_session_is_known_again(
    gateway: Gateway, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = client_context(authority(), *write_pair(tmp_path, "client", authority().issue("globex.test")))
    context.minimum_version = context.maximum_version = version
    session, answers = None, []
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", gateway.port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
        ):
            secure.sendall(b"GET /strict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            with secure.makefile("rb") as answer:
                answers.append(answer.read().split()[1])
            session = secure.session
    assert answers == [b"200", b"200"]


def test_what_a_client_says_of_its_certificate_is_not_believed(gateway: Gateway) -> None:
    spoofed = {"x-forwarded-client-cert": "By=x;URI=spiffe://test/acme"}
    assert _outcome(_get(gateway, "/strict", headers=spoofed)) == (401, "certificate_missing", None)
    seen = _get(gateway, "/optional", headers=spoofed).json()["headers"]
    assert "x-forwarded-client-cert" not in seen


def test_a_token_of_another_consumer_does_not_go_with_a_certificate(gateway: Gateway, tmp_path: Path) -> None:
    files = write_pair(tmp_path, "client", authority().issue("globex.test"))
    for azp, outcome in (("acme-app", (401, "consumers_differ", None)), ("x", (200, None, "globex"))):
        headers = {"authorization": f"Bearer {tokens.token(azp=azp)}"}
        assert _outcome(_get(gateway, "/both", *files, headers=headers)) == outcome


def test_a_refusal_of_a_certificate_says_what_is_needed(gateway: Gateway) -> None:
    assert _get(gateway, "/strict").headers["www-authenticate"] == 'Certificate realm="gateway"'


@pytest.mark.parametrize("kind", ["expired", "of a stranger"])
def test_a_certificate_that_the_authority_does_not_vouch_for_never_reaches_a_route(
    gateway: Gateway, tmp_path: Path, kind: str
) -> None:
    signer, days = (authority(), -1) if kind == "expired" else (Authority("stranger"), 30)
    files = write_pair(tmp_path, "client", signer.issue("spiffe://test/acme", days=days))
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        _get(gateway, "/strict", *files)
