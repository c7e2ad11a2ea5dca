"""Key sets with keys that Envoy does not take: their issuers are closed alone, and whoever runs the gateway is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.support import key_sets, tokens
from tests.support.backend import Backend
from tests.support.folder import filled, write
from tests.support.gateway import Gateways
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

CLOSED = {name: key_sets.key_set(key) for name, (key, _) in key_sets.SINGLE.items()} | {
    name: content for name, (content, _) in key_sets.WHOLE.items()
}
SETS: Mapping[str, bytes] = {**CLOSED, **key_sets.GOOD}
NUMBERS = {name: number for number, name in enumerate(SETS)}
YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
consumers: {acme: {api_keys: [{sha256: $digest}]}}
identity:
  corp: {issuer: "$issuer", jwks: {file: keys/corp.json}}$providers
routes:$routes$more
"""
PROVIDER = '\n  p$number: {issuer: "https://$number.test", jwks: {file: keys/$number.json}}'
ROUTE = "\n  p$number: {path: /$number, upstream: echo, policies: {jwt: p$number}}"
MORE = """
  corp: {path: /corp, upstream: echo, policies: {jwt: corp}}
  any: {path: /any, upstream: echo, policies: {jwt: [corp, p0]}}
  all: {path: /all, upstream: echo, policies: {jwt: {all: [corp, p0]}}}
  optional: {path: /optional, upstream: echo, policies: {jwt: {provider: p0, optional: true}}}
  keys: {path: /keys, upstream: echo, policies: {jwt: p0, api_key: true}}
"""


@pytest.fixture(scope="module")
def url(gateways: Gateways, backend: Backend) -> str:
    """A gateway with every key set, each of a provider and a route of its own."""
    files = {f"keys/{number}.json": SETS[name] for name, number in NUMBERS.items()}
    gateway = gateways.start(
        YAML,
        files={"keys/corp.json": tokens.jwks(), **files},
        echo=backend.address,
        digest="0" * 64,
        issuer=tokens.ISSUER,
        providers="".join(filled(PROVIDER, number=number) for number in NUMBERS.values()),
        routes="".join(filled(ROUTE, number=number) for number in NUMBERS.values()),
        more=MORE,
    )
    return gateway.url


def _get(url: str, path: str, token: str | None) -> tuple[int, str | None]:
    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    answer = httpx.get(f"{url}{path}", headers=headers, timeout=20)
    return answer.status_code, answer.headers.get("x-gateway-reason")


def _token(number: int, **more: str) -> str:
    return tokens.token(iss=f"https://{number}.test", **more)


@pytest.mark.parametrize("name", CLOSED)
def test_an_issuer_without_a_usable_key_is_closed(url: str, name: str) -> None:
    number = NUMBERS[name]
    assert _get(url, f"/{number}", _token(number)) == (503, "jwt_keys_unavailable")
    assert _get(url, f"/{number}", None) == (401, "jwt_missing")


@pytest.mark.parametrize("name", key_sets.GOOD)
def test_an_issuer_with_a_usable_key_is_open(url: str, name: str) -> None:
    number = NUMBERS[name]
    assert _get(url, f"/{number}", _token(number)) == (200, None)


@pytest.mark.parametrize("algorithm", tokens.KEYS)
def test_other_issuers_go_on(url: str, algorithm: str) -> None:
    assert _get(url, "/corp", tokens.token(algorithm)) == (200, None)


def test_a_token_that_names_the_key_of_nobody_is_as_any_other(url: str) -> None:
    for algorithm, kid in (("ES256", "xds/none"), ("RS256", "other"), ("EdDSA", "xds/none")):
        token = tokens.token(algorithm, kid=kid, iss="https://0.test")
        assert _get(url, "/0", token) == (503, "jwt_keys_unavailable")


@pytest.mark.parametrize(
    ("path", "corp", "closed", "none"),
    [
        ("/any", (200, None), (503, "jwt_keys_unavailable"), (401, "jwt_missing")),
        ("/all", (401, "jwt_wrong_issuer"), (401, "jwt_wrong_issuer"), (401, "jwt_missing")),
        ("/optional", (401, "jwt_wrong_issuer"), (503, "jwt_keys_unavailable"), (200, None)),
        ("/keys", (401, "jwt_wrong_issuer"), (503, "jwt_keys_unavailable"), (401, "credentials_missing")),
    ],
)
def test_it_is_closed_beside_others_too(
    url: str, path: str, corp: tuple[int, str | None], closed: tuple[int, str], none: tuple[int, str | None]
) -> None:
    assert _get(url, path, tokens.token()) == corp
    assert _get(url, path, _token(0)) == closed
    assert _get(url, path, None) == none


RUN = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
identity:
  corp: {issuer: "$issuer", jwks: {file: corp.json}}
  partner: {issuer: "https://partner.test", jwks: {file: partner.json}}
routes:
  corp: {path: /corp, upstream: echo, policies: {jwt: corp}}
  partner: {path: /partner, upstream: echo, policies: {jwt: partner}}
"""


def test_a_key_is_revoked_while_another_issuer_publishes_nonsense(tmp_path: Path) -> None:
    folder, port = tmp_path / "gateway", free_port()
    url = f"http://127.0.0.1:{port}"
    ours, theirs = tokens.token(), tokens.token(iss="https://partner.test")
    with Backend() as echo:
        write(folder, gateway=filled(RUN, port=port, echo=echo.address, issuer=tokens.ISSUER))
        (folder / "corp.json").write_text(tokens.jwks())
        (folder / "partner.json").write_bytes(key_sets.key_set({"kty": "RSA", "kid": "cut"}))
        with Running(folder, tmp_path) as running:
            wait_for(lambda: _get(url, "/corp", ours)[0] == 200, "the gateway to serve at a fresh start")
            assert _get(url, "/partner", theirs) == (503, "jwt_keys_unavailable")
            running.says("the key 'cut' of partner.json is left out: it has no 'n'")
            (folder / "partner.json").write_text(tokens.jwks())
            wait_for(lambda: _get(url, "/partner", theirs)[0] == 200, "mended keys to be used")
            (folder / "partner.json").write_text("-----BEGIN PUBLIC KEY-----")
            wait_for(lambda: _get(url, "/partner", theirs)[0] == 503, "keys that are gone to be forgotten")
            running.says("partner.json has no usable key: it is PEM and no JSON Web Key Set")
            (folder / "corp.json").write_text(tokens.jwks(tokens.EC))
            wait_for(lambda: _get(url, "/corp", ours)[0] == 401, "the revoked key to be refused")
            assert _get(url, "/corp", tokens.token("ES256")) == (200, None)
            assert re.search(r"gateway\.yaml:\d+:\d+: warning: identity\.partner\.jwks: ", running.log)
