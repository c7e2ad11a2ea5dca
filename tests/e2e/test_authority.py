"""An authority that is no host and port, or several joined by commas, is refused whatever hosts the routes have."""

from __future__ import annotations

import socket

import pytest

from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port

YAML = """
listeners:
  exact: {port: $exact, address: 127.0.0.1}
  wildcard: {port: $wildcard, address: 127.0.0.1}
  open: {port: $open, address: 127.0.0.1}
  moved: {port: $moved, address: 127.0.0.1, redirect_to_https: true}
routes:
  exact: {hosts: [api.example.com], listeners: [exact], respond: {body: exact}}
  admin: {hosts: [api.example.com], listeners: [open], respond: {body: admin}}
  open: {listeners: [open], respond: {body: open}}
  wildcard: {hosts: ["*.example.com"], listeners: [wildcard], respond: {body: wildcard}}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways) -> Gateway:
    return gateways.start(YAML, exact=free_port(), wildcard=free_port(), moved=free_port(), open=free_port())


def _status(gateway: Gateway, listener: str, *hosts: str) -> int:
    lines = "".join(f"host: {host}\r\n" for host in hosts)
    port = gateway.compiled.gateway.sections.listeners[listener].port
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(("listener", "status"), [("exact", 200), ("wildcard", 200), ("moved", 308)])
def test_several_hosts_are_refused(gateway: Gateway, listener: str, status: int) -> None:
    assert _status(gateway, listener, "api.example.com") == status
    assert _status(gateway, listener, "api.example.com", "api.example.com") == 400
    assert _status(gateway, listener, "evil.test", "api.example.com") == 400
    assert _status(gateway, listener, "api.example.com", "evil.test") == 400
    assert _status(gateway, listener, "a,api.example.com:80") == 400


@pytest.mark.parametrize("listener", ["exact", "wildcard", "open"])
@pytest.mark.parametrize(
    "host",
    [
        "u@api.example.com",
        "u:p@api.example.com:80",
        "api.example.com:80:90",
        "api.example.com::80",
        "other.example.com:x:80",
        "api.example.com@evil.test",
        "::1",
    ],
)
def test_what_is_no_host_and_port_is_refused(gateway: Gateway, listener: str, host: str) -> None:
    assert _status(gateway, listener, host) == 400


@pytest.mark.parametrize(
    "host", ["evil.test", "a_b", "1.2.3.4:80", "[::1]", "[::1]:8080", "x:", "xn--caf-dma.test", "a+b"]
)
def test_every_host_and_port_is_taken(gateway: Gateway, host: str) -> None:
    assert _status(gateway, "open", host) == 200


@pytest.mark.parametrize("listener", ["exact", "wildcard"])
def test_another_host_is_not_found_as_before(gateway: Gateway, listener: str) -> None:
    assert _status(gateway, listener, "example.org") == 404
