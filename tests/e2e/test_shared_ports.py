"""Several listeners at one port: hosts choose among them, none answers for another, and each changes alone."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.certificates import Authority, authority
from tests.support.envoy import Envoy
from tests.support.folder import compiled, filled, write
from tests.support.gateway import Gateway, Gateways
from tests.support.http3 import http3
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.tls import write_pair
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap

YAML = """
listeners:
  # two listeners for names, one of which verifies clients, and one for all other names
  a: {port: $tls, address: 127.0.0.1, hosts: [a.example.com], tls: {certificates: [a]}, http3: true}
  b:
    port: $tls
    address: 127.0.0.1
    hosts: [b.example.com, "*.b.example.com"]
    tls: {certificates: [b], client_certificate: {ca: {file: ca.crt}}, minimum_version: "1.3"}
  rest: {port: $tls, address: 127.0.0.1, tls: {certificates: [rest]}, http3: true}
  # the same without one for all other names
  named: {port: $named, address: 127.0.0.1, hosts: ["*.EXAMPLE.com"], tls: {certificates: [rest]}}
  exact: {port: $named, address: 127.0.0.1, hosts: [exact.example.com], tls: {certificates: [a]}}
  # plain HTTP
  plain-exact: {port: $plain, address: 127.0.0.1, hosts: [a.example.com]}
  plain-wild: {port: $plain, address: 127.0.0.1, hosts: ["*.example.com"]}
  plain-deep: {port: $plain, address: 127.0.0.1, hosts: ["*.deep.example.com"]}
  plain-moved: {port: $plain, address: 127.0.0.1, hosts: [moved.example.com], redirect_to_https: true}
  plain-rest: {port: $plain, address: 127.0.0.1}
  few: {port: $few, address: 127.0.0.1, hosts: [few.example.com]}
secrets:
  a: {certificate: {file: a.crt}, private_key: {file: a.key}}
  b: {certificate: {file: b.crt}, private_key: {file: b.key}}
  rest: {certificate: {file: rest.crt}, private_key: {file: rest.key}}
routes:
  everywhere: {path: /everywhere, respond: {body: everywhere}}
  of-a: {path: /name, listeners: [a], respond: {body: a}}
  of-b: {path: /name, listeners: [b], respond: {body: b}}
  of-rest: {path: /name, listeners: [rest], respond: {body: rest}}
  wild: {path: /wild, hosts: ["*.example.com"], respond: {body: wild}}
  exact-wins: {path: /wild, hosts: [a.example.com], respond: {body: exact}}
  plain-exact: {path: /name, listeners: [plain-exact], respond: {body: plain-exact}}
  plain-wild: {path: /name, listeners: [plain-wild], hosts: [x.example.com, "*.deep.example.com"], respond: {body: plain-wild}}
  plain-deep: {path: /name, listeners: [plain-deep], hosts: [one.deep.example.com], respond: {body: plain-deep}}
  plain-rest: {path: /name, listeners: [plain-rest], respond: {body: plain-rest}}
  plain-rest-only: {path: /rest-only, listeners: [plain-rest], respond: {body: rest-only}}
"""


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("tls", "named", "plain", "few")}


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, ports: dict[str, int]) -> Gateway:
    files = {"ca.crt": authority().pem}
    for name in ("a", "b", "rest"):
        files[f"{name}.crt"], files[f"{name}.key"] = authority().issue(
            f"{name}.example.com", "*.example.com", "*.b.example.com"
        )
    return gateways.start(YAML, files=files, **ports)


@dataclass(frozen=True)
class Answer:
    """The status, body and reason of a response; all are empty if the connection was closed."""

    status: int = 0
    body: str = ""
    reason: str = ""


CLOSED = Answer()


def _trusting(*certificate: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority().pem.decode())
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(*certificate)
    return context


@pytest.fixture(scope="module")
def client_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_pair(tmp_path_factory.mktemp("client"), "client", authority().issue("client.test"))


def ask(
    port: int, server_name: str | None, host: str, path: str = "/name", certificate: tuple[str, ...] = ()
) -> Answer:
    """One request for `host` on a connection with this server name (SNI), None for none."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
            _trusting(*certificate).wrap_socket(connection, server_hostname=server_name) as tls,
        ):
            return _ask(tls, host, path)
    except OSError:
        return CLOSED


def plain(port: int, host: str, path: str = "/name") -> Answer:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        return _ask(connection, host, path)


def _ask(connection: socket.socket, host: str, path: str) -> Answer:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    received = b""
    while more := connection.recv(65536):
        received += more
    head, _, body = received.decode().partition("\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    reason = fields.get("x-gateway-reason", "")
    return Answer(int(head[9:12]), "" if reason else body, reason)


MISDIRECTED = Answer(421, "", "misdirected_request")
NOT_FOUND = Answer(404, "", "not_found")


@pytest.mark.parametrize(
    ("server_name", "host", "expected"),
    [
        ("a.example.com", "a.example.com", Answer(200, "a")),
        ("A.Example.COM", "a.example.com:8443", Answer(200, "a")),
        ("c.example.com", "c.example.com", Answer(200, "rest")),
        (None, "c.example.com", Answer(200, "rest")),
        ("a.example.com", "c.example.com", MISDIRECTED),
        ("c.example.com", "a.example.com", MISDIRECTED),
        ("c.example.com", "a.example.com.", MISDIRECTED),
    ],
)
def test_the_server_name_chooses_and_a_request_for_another_listener_is_misdirected(
    gateway: Gateway, ports: dict[str, int], server_name: str | None, host: str, expected: Answer
) -> None:
    assert ask(ports["tls"], server_name, host) == expected


@pytest.mark.parametrize("server_name", ["a.example.com", "unknown.test", None])
@pytest.mark.parametrize("host", ["b.example.com", "B.EXAMPLE.COM", "b.example.com:443", "x.y.b.example.com"])
@pytest.mark.parametrize("path", ["/name", "/everywhere", "/wild"])
def test_no_other_connection_gets_around_the_client_certificate_of_a_listener(
    gateway: Gateway, ports: dict[str, int], server_name: str | None, host: str, path: str
) -> None:
    assert ask(ports["tls"], server_name, host, path) == MISDIRECTED


def test_each_listener_has_its_own_rules_for_clients_and_its_own_versions(
    gateway: Gateway, ports: dict[str, int], client_pair: tuple[str, str]
) -> None:
    assert ask(ports["tls"], "b.example.com", "b.example.com") == CLOSED
    assert ask(ports["tls"], "b.example.com", "b.example.com", certificate=client_pair) == Answer(200, "b")
    for name, version in (("a", "TLSv1.2"), ("b", None)):
        assert _at_most_tls_1_2(ports["tls"], f"{name}.example.com", client_pair) == version


@pytest.mark.parametrize(
    ("server_name", "host", "expected"),
    [
        ("a.example.com", "a.example.com", (b"200", b"a")),
        ("c.example.com", "c.example.com", (b"200", b"rest")),
        # the listener has no HTTP/3, so the one for all other names gets the connection
        ("b.example.com", "b.example.com", (b"421", b"misdirected_request")),
        ("a.example.com", "c.example.com", (b"421", b"misdirected_request")),
    ],
)
async def test_the_server_name_chooses_over_http3_too(
    gateway: Gateway,
    ports: dict[str, int],
    tmp_path: Path,
    server_name: str,
    host: str,
    expected: tuple[bytes, bytes],
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    async with http3(ports["tls"], server_name, tmp_path / "ca.pem") as connection:
        connection.ask(host, "/name")
        await asyncio.wait_for(connection.done, 30)
    answer = connection.headers.get(b"x-gateway-reason") or connection.body
    assert (connection.headers[b":status"], answer) == expected


def _at_most_tls_1_2(port: int, server_name: str, certificate: tuple[str, str]) -> str | None:
    context = _trusting(*certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
            context.wrap_socket(connection, server_hostname=server_name) as tls,
        ):
            return tls.version()
    except OSError:
        return None


def test_without_a_listener_for_all_hosts_other_connections_are_closed(
    gateway: Gateway, ports: dict[str, int]
) -> None:
    at = ports["named"]
    assert ask(at, None, "x.example.com", "/everywhere") == CLOSED
    assert ask(at, "x.test", "x.example.com", "/everywhere") == CLOSED
    assert ask(at, "x.example.com", "x.example.com", "/everywhere") == Answer(200, "everywhere")
    assert ask(at, "x.example.com", "exact.example.com", "/everywhere") == MISDIRECTED
    assert ask(at, "exact.example.com", "x.example.com", "/everywhere") == MISDIRECTED
    assert ask(at, "x.example.com", "x.test", "/everywhere") == NOT_FOUND


def test_a_route_is_for_the_hosts_that_it_shares_with_a_listener_and_the_exact_one_wins(
    gateway: Gateway, ports: dict[str, int]
) -> None:
    assert ask(ports["tls"], "a.example.com", "a.example.com", "/wild") == Answer(200, "exact")
    assert ask(ports["tls"], "c.example.com", "c.example.com", "/wild") == Answer(200, "wild")
    assert ask(ports["tls"], "c.test", "c.test", "/wild") == NOT_FOUND


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("a.example.com", "/name", Answer(200, "plain-exact")),
        ("a.example.com", "/everywhere", Answer(200, "everywhere")),
        ("x.example.com", "/name", Answer(200, "plain-wild")),
        ("y.example.com", "/name", NOT_FOUND),
        ("y.example.com", "/rest-only", NOT_FOUND),
        ("a.example.com", "/rest-only", NOT_FOUND),
        ("one.deep.example.com", "/name", Answer(200, "plain-deep")),
        ("two.deep.example.com", "/name", NOT_FOUND),
        ("two.deep.example.com", "/everywhere", Answer(200, "everywhere")),
        ("x.test", "/name", Answer(200, "plain-rest")),
        ("x.test:80", "/rest-only", Answer(200, "rest-only")),
    ],
)
def test_a_host_belongs_to_the_most_specific_listener_of_plain_http_and_no_other_is_tried(
    gateway: Gateway, ports: dict[str, int], host: str, path: str, expected: Answer
) -> None:
    assert plain(ports["plain"], host, path) == expected


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("moved.example.com", "https://moved.example.com/name"),
        ("moved.example.com:8080", "https://moved.example.com:443/name"),
    ],
)
def test_one_listener_of_a_port_redirects_to_https(
    gateway: Gateway, ports: dict[str, int], host: str, location: str
) -> None:
    answer = httpx.get(f"http://127.0.0.1:{ports['plain']}/name", headers={"host": host}, timeout=30)
    assert (answer.status_code, answer.headers["location"]) == (308, location)


def test_a_host_that_belongs_to_no_listener_is_not_found(gateway: Gateway, ports: dict[str, int]) -> None:
    assert plain(ports["few"], "few.example.com", "/everywhere") == Answer(200, "everywhere")
    assert plain(ports["few"], "other.example.com", "/everywhere") == NOT_FOUND


# --- changes ------------------------------------------------------------------------------------------------------

OF_A = "  a: {port: $port, address: 127.0.0.1, hosts: [a.example.com]$tls}\n"
OF_B = (
    "",
    "  b: {port: $port, address: 127.0.0.1, hosts: [b.example.com]$tls}\n",
    "  b: {port: $port, address: 127.0.0.1, hosts: [b.example.com, c.example.com]$tls}\n",
    "  b: {port: $port, address: 127.0.0.1$tls}\n",
    "",
    "  0: {port: $port, address: 127.0.0.1$tls}\n",
    "  renamed: {port: $port, address: 127.0.0.1$tls}\n",
    "",
)
AROUND = """
upstreams: {slow: {endpoints: ["$backend"]}}
secrets: {one: {certificate: {file: one.crt}, private_key: {file: one.key}}}
routes:
  version: {path: /version, hosts: [a.example.com], respond: {body: "$version"}}
  slow: {path: /slow, hosts: [a.example.com], upstream: slow, timeout: 0s}
"""


@pytest.fixture
def slow() -> Iterator[Backend]:
    with Backend("slow") as backend:
        backend.release = threading.Event()
        yield backend


@pytest.mark.parametrize("tls", ["", ", tls: {certificates: [one]}"], ids=["plain", "tls"])
def test_a_long_request_survives_that_another_listener_is_added_changed_and_removed(
    tmp_path: Path, slow: Backend, tls: str
) -> None:
    port = free_port()
    pair = authority().issue("a.example.com")
    write(tmp_path / "gateway", {"one.crt": pair[0], "one.key": pair[1]})

    def folder(version: int, more: str) -> Any:
        text = filled("listeners:\n" + OF_A + more, port=port, tls=tls)
        text += filled(AROUND, backend=slow.address, version=version)
        return compiled(write(tmp_path / "gateway", gateway=text)).snapshot

    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    options: dict[str, Any] = {
        "headers": {"host": "a.example.com"},
        "extensions": {"sni_hostname": "a.example.com"},
    }
    answers: list[int] = []

    def long_request() -> None:
        with httpx.Client(verify=_trusting(), timeout=120) as client:
            answers.append(client.get(f"{url}/slow", **options).status_code)

    with XdsThread() as xds, Envoy(bootstrap(xds.port), tmp_path) as envoy:
        xds.publish(folder(0, ""))
        envoy.ready()
        thread = threading.Thread(target=long_request)
        with httpx.Client(verify=_trusting(), timeout=30) as client:

            def version() -> str:
                return client.get(f"{url}/version", **options).text

            wait_for(lambda: version() == "0", "the first version")
            thread.start()
            wait_for(lambda: slow.seen, "the long request")
            for number, more in enumerate(OF_B, 1):
                xds.publish(folder(number, more))
                wait_for(lambda number=number: version() == str(number), f"version {number}")
            # the test's Envoy closes drained connections after a second
            draining = "listener_manager.total_(filter_chains|listeners)_draining"
            wait_for(lambda: not any(envoy.stats(draining).values()), "the end of every drain")
            assert envoy.stats("listener_manager.listener_(added|removed)") == {
                "listener_manager.listener_added": 1,
                "listener_manager.listener_removed": 0,
            }
        assert slow.release is not None
        slow.release.set()
        thread.join()
        assert answers == [200]


def test_what_envoy_rejects_of_one_listener_takes_no_other_listener_of_the_port_away(tmp_path: Path) -> None:
    port, other = free_port(), Authority("Another CA")
    files = {"ca.crt": other.pem}
    files["one.crt"], files["one.key"] = authority().issue("a.example.com")
    folder = write(tmp_path / "gateway", files)
    good = (
        "  a: {port: $port, address: 127.0.0.1, hosts: [a.example.com], tls: {certificates: [one]$ciphers}}\n"
    )

    def change(version: int, ciphers: str = "") -> None:
        of_b = good.replace("  a:", "  b:").replace("a.example", "b.example")
        text = "listeners:\n" + filled(good, port=port, ciphers="") + filled(of_b, port=port, ciphers=ciphers)
        # this one never gets the connections of another one
        text += f"  rest: {{port: {port}, address: 127.0.0.1, tls: {{certificates: [one]}}}}\n"
        text += filled(AROUND, backend="127.0.0.1:1", version=version)
        text += f"  of-b: {{path: /of-b, hosts: [b.example.com], respond: {{body: '{version}'}}}}\n"
        write(folder, gateway=text)

    def answers(path: str, host: str) -> str:
        return ask(port, host, host, path).body

    change(1, ", cipher_suites: [NO-SUCH-CIPHER]")
    with Running(folder, tmp_path) as running:
        wait_for(lambda: answers("/version", "a.example.com") == "1", lambda: running.log[-3000:])
        assert ask(port, "b.example.com", "b.example.com", "/of-b") == CLOSED
        (held,) = running.status()["held"]
        assert (held["type"], held["name"]) == ("listener", "b")
        assert held["place"].endswith("gateway.yaml:3:3")
        assert "NO-SUCH-CIPHER" in held["message"]
        change(2)
        wait_for(lambda: answers("/of-b", "b.example.com") == "2", lambda: running.log[-3000:])
        assert running.status()["held"] == []
        change(3, ", cipher_suites: [NO-SUCH-CIPHER]")
        wait_for(lambda: answers("/version", "a.example.com") == "3", lambda: running.log[-3000:])
        wait_for(lambda: running.status()["held"], "the listener that is held back")
        # its last good form stays, with the new routes
        assert answers("/of-b", "b.example.com") == "3"
        (held,) = running.status()["held"]
        assert held["served_instead"]
