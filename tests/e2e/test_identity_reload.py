"""Consumers, keys and issuers come and go while requests run: nothing is drained, nothing is refused that may pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.folder import write
from tests.support.identity_cases import sha256
from tests.support.running import Served
from tests.support.wait import wait_for

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
identity:
  corp: {issuer: "$issuer", jwks: {file: jwks.json}}
  $providers
consumers:
  acme: {api_keys: [{sha256: $key}]}
  $consumers
routes:
  key: {path: /key, upstream: echo, policies: {api_key: true}}
  token: {path: /token, upstream: echo, policies: {jwt: $jwt}}
"""
BETA = f"beta: {{api_keys: [{{sha256: {sha256('beta-key')}}}]}}"
PARTNER = "partner: {issuer: https://partner.test, jwks: {file: jwks.json}}"


class Reloaded(Served):
    """`xds run` on a folder, and one connection on which all requests go."""

    def __init__(self, root: Path, backend: Backend, client: httpx.Client) -> None:
        super().__init__(root, YAML, echo=backend.address, issuer=tokens.ISSUER, key=sha256("acme-key"))
        client.base_url = self.url
        self.client = client
        self.drained: list[str] = []

    def change(self, *, providers: str = "", consumers: str = "", jwt: str = "corp") -> None:
        self.write("", providers=providers, consumers=consumers, jwt=jwt)

    def key(self, value: str) -> int:
        """The status with a key."""
        return self._get("/key", {"x-api-key": value})

    def token(self, value: str) -> int:
        return self._get("/token", {"authorization": f"Bearer {value}"})

    def _get(self, path: str, headers: dict[str, str]) -> int:
        answer = self.client.get(path, headers=headers)
        if "connection" in answer.headers:  # Envoy says `close` when a listener drains
            self.drained.append(path)
        return answer.status_code


@pytest.fixture
def served(tmp_path: Path, backend: Backend) -> Iterator[Reloaded]:
    with httpx.Client() as client:
        served = Reloaded(tmp_path, backend, client)
        write(served.folder, {"jwks.json": tokens.jwks(tokens.RSA)})
        served.change()
        with served:
            wait_for(lambda: served.key("acme-key") == 200, "the gateway to serve")
            yield served


def _until(served: Reloaded, status: int, value: str) -> None:
    """Wait until a key is answered so, while the other key passes all the time."""
    others = []

    def reached() -> bool:
        others.append(served.key("acme-key"))
        return served.key(value) == status

    wait_for(reached, f"{value} to be answered {status}")
    assert set(others) == {200}


def test_a_key_comes_and_goes_and_no_connection_is_drained(served: Reloaded) -> None:
    assert served.key("beta-key") == 401
    served.change(consumers=BETA)
    _until(served, 200, "beta-key")
    served.change()
    _until(served, 401, "beta-key")
    assert not served.drained


def test_an_issuer_and_its_keys_change_and_no_connection_is_drained(served: Reloaded) -> None:
    partner = tokens.token(iss="https://partner.test")
    assert (served.token(tokens.token()), served.token(partner)) == (200, 401)
    served.change(providers=PARTNER, jwt="[corp, partner]")
    wait_for(lambda: served.token(partner) == 200, "the new issuer to be accepted")
    (served.folder / "jwks.json").write_text(tokens.jwks(tokens.EC))
    wait_for(lambda: served.token(tokens.token("ES256")) == 200, "the new key to be accepted")
    wait_for(lambda: served.token(tokens.token()) == 401, "the old key to be refused")
    assert not served.drained


def test_an_issuer_whose_keys_are_fetched_comes_and_goes(served: Reloaded) -> None:
    remote = tokens.token(iss="https://remote.test")
    with Backend("issuer") as issuer:
        issuer.body = tokens.jwks().encode()
        provider = f'remote: {{issuer: "https://remote.test", jwks: {{url: "http://{issuer.address}/jwks"}}}}'
        served.change(providers=provider, jwt="[corp, remote]")
        wait_for(lambda: served.token(remote) == 200, "tokens of the new issuer to be accepted")
        wait_for(lambda: served.token(tokens.token()) == 200, "the route and its issuers to fit together")
        served.change()
        wait_for(lambda: served.token(remote) == 401, "tokens of the issuer that is gone to be refused")
        wait_for(lambda: served.token(tokens.token()) == 200, "the route and its issuers to fit together")
    assert not served.drained
