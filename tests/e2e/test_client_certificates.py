"""Client certificates of a listener: several authorities, and a listener that accepts any certificate and trusts none."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.certificates import Authority, authority
from tests.support.http3 import http3
from tests.support.policy_server import Stack, Stacks
from tests.support.ports import free_port
from tests.support.tls import client_context, write_pair
from tests.support.wait import wait_for

YAML = """
listeners:
  lax:
    port: $port
    address: 127.0.0.1
    http3: true
    tls:
      certificates: [server]
      client_certificate:
        {ca: [{file: one.crt}, {file: two.crt}], required: false, verify: false, subject_alt_names: ["*.test", "spiffe://test/acme"]}
  strict:
    port: $strict
    address: 127.0.0.1
    tls: {certificates: [server], client_certificate: {ca: [{file: one.crt}, {file: two.crt}]}}
  any:
    port: $any
    address: 127.0.0.1
    tls: {certificates: [server], client_certificate: {ca: {file: one.crt}, verify: false}}
secrets: {server: {certificate: {file: server.crt}, private_key: {file: server.key}}}
upstreams: {echo: {endpoints: ["$echo"]}}
consumers: {acme: {certificates: [spiffe://test/acme]}}
routes:
  open: {path: /open, upstream: echo}
  consumer: {path: /consumer, upstream: echo, policies: {mtls: true}}
  signed: {path: /signed, upstream: echo, policies: {mtls: {consumers_only: false}}}
  peer: {path: /peer, upstream: echo, policies: {ext_authz: {python: peer.py:check}}}
"""
POLICY = """
from filters.ext_authz import Decision, Request, allow


def check(request: Request) -> Decision:
    return allow(headers={"x-peer": request.peer.principal if request.peer else "nobody"})
"""
FIRST, SECOND, FOREIGN = Authority("One"), Authority("Two"), Authority("Foreign")
PEER = "spiffe://test/acme"


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("port", "strict", "any")}


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend, ports: dict[str, int]) -> Stack:
    certificate, key = authority().issue("127.0.0.1")
    # without its line end, as some tools write it
    files = {"one.crt": FIRST.pem.rstrip(), "two.crt": SECOND.pem, "peer.py": POLICY}
    files |= {"server.crt": certificate, "server.key": key}
    stack = stacks.start(YAML, files=files, echo=backend.address, **ports)
    for port in ports.values():  # Envoy is ready before it has all listeners
        wait_for(partial(_open, port), "the port to open")
    return stack


def _open(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), 5).close()
    return True


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    folder = tmp_path_factory.mktemp("clients")
    issued = {
        "one": FIRST.issue(PEER),
        "two": SECOND.issue(PEER),
        "foreign": FOREIGN.issue(PEER),
        "expired": FIRST.issue(PEER, days=-1),
        "other-name": FIRST.issue("other.example.com"),
    }
    return {
        "none": (),
        **{name: write_pair(folder, name, pair) for name, pair in issued.items()},
    }


def _get(port: int, path: str, files: tuple[str, ...]) -> httpx.Response | None:
    context = client_context(authority(), *files)
    forged = {"x-forwarded-client-cert": "Subject=forged"}
    try:
        return httpx.get(f"https://127.0.0.1:{port}{path}", verify=context, headers=forged, timeout=30)
    except httpx.TransportError:
        return None


def _status(port: int, path: str, files: tuple[str, ...]) -> int | None:
    response = _get(port, path, files)
    return None if response is None else response.status_code


@pytest.mark.parametrize(
    ("client", "expected"),
    [("one", 200), ("two", 200), ("foreign", None), ("expired", None), ("none", None)],
)
def test_each_of_several_authorities_is_accepted_and_no_other(
    stack: Stack, ports: dict[str, int], pairs: dict[str, tuple[str, ...]], client: str, expected: int | None
) -> None:
    assert _status(ports["strict"], "/open", pairs[client]) == expected


@pytest.mark.parametrize(
    ("client", "verified"),
    [
        ("one", True),
        ("two", True),
        ("none", False),
        ("foreign", False),
        ("expired", False),
        ("other-name", False),
    ],
)
def test_without_verification_every_client_is_accepted_and_only_a_verified_one_is_known(
    stack: Stack, ports: dict[str, int], pairs: dict[str, tuple[str, ...]], client: str, verified: bool
) -> None:
    at, files = ports["port"], pairs[client]
    response = _get(at, "/open", files)
    assert response is not None
    assert response.status_code == 200
    seen = response.json()["headers"]
    assert "x-forwarded-client-cert" not in seen
    assert _status(at, "/consumer", files) == (200 if verified else 401)
    assert _status(at, "/signed", files) == (200 if verified else 401)
    response = _get(at, "/peer", files)
    assert response is not None
    assert response.json()["headers"]["x-peer"] == (PEER if verified else "nobody")


@pytest.mark.parametrize(("client", "expected"), [("one", 200), ("foreign", 200), ("none", None)])
def test_a_certificate_may_be_required_and_not_verified(
    stack: Stack, ports: dict[str, int], pairs: dict[str, tuple[str, ...]], client: str, expected: int | None
) -> None:
    assert _status(ports["any"], "/open", pairs[client]) == expected


@pytest.mark.parametrize(
    ("client", "reason"),
    [("one", None), ("foreign", b"certificate_unknown"), ("none", b"certificate_missing")],
)
async def test_only_a_verified_certificate_is_known_over_http3_too(
    stack: Stack,
    ports: dict[str, int],
    pairs: dict[str, tuple[str, ...]],
    tmp_path: Path,
    client: str,
    reason: bytes | None,
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    async with http3(ports["port"], "127.0.0.1", tmp_path / "ca.pem", pairs[client]) as connection:
        connection.ask("127.0.0.1", "/consumer")
        await asyncio.wait_for(connection.done, 30)
    assert connection.headers[b":status"] == (b"200" if reason is None else b"401")
    assert connection.headers.get(b"x-gateway-reason") == reason
