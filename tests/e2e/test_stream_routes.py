"""Listeners for TCP and UDP: bytes are forwarded by server name and weight, and connections survive other changes."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.certificates import authority
from tests.support.echo import DatagramServer, EchoServer
from tests.support.envoy import Envoy
from tests.support.folder import compiled, filled, write
from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port
from tests.support.tls import write_pair
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap

YAML = """
listeners:
  raw: {port: $raw, address: 127.0.0.1, protocol: tcp, access_log: true}
  greeting: {port: $greeting, address: 127.0.0.1, protocol: tcp}
  shared: {port: $weighted, address: 127.0.0.1, protocol: tcp}
  idle: {port: $idle, address: 127.0.0.1, protocol: tcp}
  few: {port: $few, address: 127.0.0.1, protocol: tcp, limits: {max_connections: 2}}
  closed: {port: $closed, address: 127.0.0.1, protocol: tcp}
  unused: {port: $unused, address: 127.0.0.1, protocol: tcp}
  tries: {port: $tries, address: 127.0.0.1, protocol: tcp}
  to-tls: {port: $to_tls, address: 127.0.0.1, protocol: tcp}
  udp: {port: $udp, address: 127.0.0.1, protocol: udp, access_log: true}
  udp-weighted: {port: $udp_weighted, address: 127.0.0.1, protocol: udp}
  # one port for HTTP, TLS that the gateway ends, and TLS that it passes on
  web: {port: $tls, address: 127.0.0.1, hosts: [web.example.com], tls: {certificates: [gateway]}}
  ended: {port: $tls, address: 127.0.0.1, hosts: ["*.ended.example.com"], protocol: tcp, tls: {certificates: [gateway]}}
  passed: {port: $tls, address: 127.0.0.1, protocol: tcp}
  # a listener for all other names never takes those of another one
  rest: {port: $isolated, address: 127.0.0.1, tls: {certificates: [gateway]}}
  some: {port: $isolated, address: 127.0.0.1, hosts: ["*.some.example.com"], protocol: tcp}
secrets:
  gateway: {certificate: {file: gateway.crt}, private_key: {file: gateway.key}}
upstreams:
  one: {endpoints: ["$one"]}
  two: {endpoints: ["$two"]}
  greeter: {endpoints: ["$greeter"]}
  half: {endpoints: ["127.0.0.1:$nothing", "$one"], load_balancing: round_robin}
  empty: {endpoints: []}
  with-tls: {endpoints: ["$secure"], protocol: tcp, tls: {sni: secure.test, ca: {file: ca.crt}}}
  secure: {endpoints: ["$secure"]}
  dns: {endpoints: ["$dns"]}
  dns-next: {endpoints: ["$dns_next"]}
stream_routes:
  raw: {listeners: [raw], upstream: one}
  greeting: {listeners: [greeting], upstream: greeter}
  weighted: {listeners: [shared], split: {one: 1, two: 1, empty: 0}}
  idle: {listeners: [idle], upstream: one, idle_timeout: 200ms}
  few: {listeners: [few], upstream: one}
  closed: {listeners: [closed], upstream: empty}
  tries: {listeners: [tries], upstream: half, max_connect_attempts: 5}
  to-tls: {listeners: [to-tls], upstream: with-tls}
  udp: {listeners: [udp], upstream: dns, idle_timeout: 500ms}
  udp-weighted: {listeners: [udp-weighted], split: {dns: 1, dns-next: 1}, idle_timeout: 10s}
  ended-one: {listeners: [ended], server_names: [one.ended.example.com], upstream: one}
  ended-rest: {listeners: [ended], upstream: two}
  passed: {listeners: [passed], server_names: [secure.test, "*.secure.test"], upstream: secure}
  some: {listeners: [some], server_names: [a.some.example.com, b.example.com], upstream: secure}
routes:
  web: {path: /*, respond: {body: web}}
"""
PORTS = (
    *("raw", "greeting", "weighted", "idle", "few", "closed", "unused", "tries", "to_tls"),
    *("udp", "udp_weighted", "tls", "isolated"),
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EchoServer | DatagramServer]]:
    pair = write_pair(
        tmp_path_factory.mktemp("secure"), "secure", authority().issue("secure.test", "*.secure.test")
    )
    with ExitStack() as stack:
        yield {
            "one": stack.enter_context(EchoServer("one")),
            "two": stack.enter_context(EchoServer("two")),
            "greeter": stack.enter_context(EchoServer("greeter", b"hello")),
            "secure": stack.enter_context(EchoServer("secure", tls=pair, alpn=("http/1.1", "h2"))),
            "dns": stack.enter_context(DatagramServer("dns")),
            "dns_next": stack.enter_context(DatagramServer("dns-next")),
        }


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in PORTS}


@pytest.fixture(scope="module")
def gateway(
    gateways: Gateways, servers: dict[str, EchoServer | DatagramServer], ports: dict[str, int]
) -> Gateway:
    files = {"ca.crt": authority().pem}
    files["gateway.crt"], files["gateway.key"] = authority().issue("*.example.com", "*.ended.example.com")
    addresses = {name: server.address for name, server in servers.items()}
    return gateways.start(YAML, files=files, nothing=free_port(), **addresses, **ports)


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def _echo(connection: socket.socket, data: bytes = b"ping") -> str:
    """The answer to some bytes, "" if the connection is closed instead."""
    try:
        connection.sendall(data)
        return connection.recv(65536).decode()
    except OSError:
        return ""


def _tls(port: int, server_name: str | None, data: bytes = b"ping") -> tuple[str, str]:
    """The name in the certificate and the answer, both empty if the connection is closed."""
    context = ssl.create_default_context(cadata=authority().pem.decode())
    context.check_hostname = False
    try:
        with (
            _connect(port) as connection,
            context.wrap_socket(connection, server_hostname=server_name) as secure,
        ):
            found = secure.getpeercert()
            assert found is not None
            return str(found["subject"][0][0][1]), _echo(secure, data)  # type: ignore[index]
    except OSError:
        return "", ""


# --- TCP ----------------------------------------------------------------------------------------------------------


def test_bytes_go_to_the_upstream_and_back(gateway: Gateway, ports: dict[str, int]) -> None:
    with _connect(ports["raw"]) as connection:
        assert _echo(connection) == "one: ping"
        assert _echo(connection, b"again") == "one: again"


def test_a_server_may_speak_first(gateway: Gateway, ports: dict[str, int]) -> None:
    with _connect(ports["greeting"]) as connection:
        assert connection.recv(100) == b"hello"


def test_connections_are_split_by_weight(gateway: Gateway, ports: dict[str, int]) -> None:
    seen = Counter[str]()
    for _ in range(60):
        with _connect(ports["weighted"]) as connection:
            seen[_echo(connection)] += 1
    assert set(seen) == {"one: ping", "two: ping"}


def test_an_idle_connection_is_closed(gateway: Gateway, ports: dict[str, int]) -> None:
    with _connect(ports["idle"]) as connection:
        assert _echo(connection) == "one: ping"
        assert connection.recv(100) == b""


def test_connections_above_the_limit_are_closed(gateway: Gateway, ports: dict[str, int]) -> None:
    with _connect(ports["few"]) as first, _connect(ports["few"]) as second:
        assert _echo(first) == _echo(second) == "one: ping"
        with _connect(ports["few"]) as third:
            assert _echo(third) == ""


@pytest.mark.parametrize("port", ["closed", "unused"])
def test_without_an_endpoint_or_a_stream_route_the_connection_is_closed(
    gateway: Gateway, ports: dict[str, int], port: str
) -> None:
    with _connect(ports[port]) as connection:
        assert _echo(connection) == ""


def test_another_endpoint_is_tried_if_one_does_not_answer(gateway: Gateway, ports: dict[str, int]) -> None:
    for _ in range(6):
        with _connect(ports["tries"]) as connection:
            assert _echo(connection) == "one: ping"


def test_the_gateway_uses_tls_towards_an_upstream(gateway: Gateway, ports: dict[str, int]) -> None:
    with _connect(ports["to_tls"]) as connection:
        assert _echo(connection) == "secure: ping"


def test_each_connection_is_logged_with_what_is_known_of_it(
    gateway: Gateway, ports: dict[str, int], servers: dict[str, EchoServer | DatagramServer]
) -> None:
    with _connect(ports["raw"]) as connection:
        assert _echo(connection, b"logged") == "one: logged"
    expected = {"route": "raw", "upstream": "one", "endpoint": servers["one"].address, "client": "127.0.0.1"}
    sizes = {"bytes_received": 6, "bytes_sent": len("one: logged")}

    def logged() -> bool:
        wanted = (expected | sizes).items()
        return any(wanted <= line.items() for line in gateway.envoy.access_log())

    wait_for(logged, lambda: f"the connection in {gateway.envoy.access_log()}")
    for line in gateway.envoy.access_log():
        if line.get("route") == "raw":
            assert line.keys() == {*expected, *sizes, "time", "flags", "flags_text", "duration_ms"}


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server_name", "certificate", "answer"),
    [
        ("one.ended.example.com", "*.example.com", "one: ping"),
        ("other.ended.example.com", "*.example.com", "two: ping"),
        ("secure.test", "secure.test", "secure: ping"),
        ("x.secure.test", "secure.test", "secure: ping"),
        ("other.test", "", ""),
        (None, "", ""),
    ],
)
def test_the_server_name_chooses_between_tls_that_ends_here_and_tls_that_goes_on(
    gateway: Gateway, ports: dict[str, int], server_name: str | None, certificate: str, answer: str
) -> None:
    assert _tls(ports["tls"], server_name) == (certificate, answer)


def test_http_shares_the_port_and_answers_for_no_name_of_the_others(
    gateway: Gateway, ports: dict[str, int]
) -> None:
    def status(host: str) -> str:
        request = f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()
        return _tls(ports["tls"], "web.example.com", request)[1][9:12]

    assert status("web.example.com") == "200"
    assert status("one.ended.example.com") == "421"
    assert status("x.secure.test") == "421"
    assert status("other.test") == "404"


def test_a_name_of_a_listener_without_a_stream_route_is_closed_and_taken_by_no_other(
    gateway: Gateway, ports: dict[str, int]
) -> None:
    at = ports["isolated"]
    assert _tls(at, "a.some.example.com") == ("secure.test", "secure: ping")
    assert _tls(at, "b.some.example.com") == ("", "")
    # a stream route has no name that its listener has not
    assert _tls(at, "b.example.com")[0] == "*.example.com"


# --- UDP ----------------------------------------------------------------------------------------------------------


def _ask(port: int, text: bytes = b"ping") -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(30)
        datagrams.sendto(text, ("127.0.0.1", port))
        return datagrams.recv(65536).decode()


def test_datagrams_go_to_the_upstream_and_back_in_one_session(
    gateway: Gateway, ports: dict[str, int], servers: dict[str, EchoServer | DatagramServer]
) -> None:
    server = servers["dns"]
    assert isinstance(server, DatagramServer)
    before = len(server.peers)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(30)
        for text in (b"one", b"two"):
            datagrams.sendto(text, ("127.0.0.1", ports["udp"]))
            assert datagrams.recv(65536) == b"dns: " + text
    assert len(set(server.peers[before:])) == 1
    expected = {"route": "udp", "upstream": "dns", "endpoint": server.address, "bytes_received": 6}

    def logged() -> bool:
        return any(expected.items() <= line.items() for line in gateway.envoy.access_log())

    wait_for(logged, lambda: f"the session in {gateway.envoy.access_log()}")


def test_sessions_are_split_by_weight(gateway: Gateway, ports: dict[str, int]) -> None:
    assert {_ask(ports["udp_weighted"]) for _ in range(60)} == {"dns: ping", "dns-next: ping"}


# --- changes ------------------------------------------------------------------------------------------------------

CHANGING = """
listeners:
  raw: {port: $raw, address: 127.0.0.1, protocol: tcp}
  a: {port: $tls, address: 127.0.0.1, hosts: [a.example.com], protocol: tcp, tls: {certificates: [one]}}
  udp: {port: $udp, address: 127.0.0.1, protocol: udp}
$listener
secrets: {one: {certificate: {file: one.crt}, private_key: {file: one.key}}}
upstreams:
  one: {endpoints: ["$one"]}
  dns: {endpoints: ["$dns"]}
  other: {endpoints: ["$other"]}
stream_routes:
  raw: {listeners: [raw], upstream: one}
  a: {listeners: [a], upstream: one}
  dns: {listeners: [udp], upstream: dns}
  other: {listeners: [other], upstream: other}
routes: {version: {path: /version, respond: {body: "$version"}}}
"""
UPDATES = "listener_manager.listener_(added|modified|removed|in_place_updated)"
DRAINING = "listener_manager.total_(filter_chains|listeners)_draining"
OTHERS = (
    "  other: {port: $other_port, address: 127.0.0.1, protocol: tcp}",
    "  other: {port: $tls, address: 127.0.0.1, hosts: [b.example.com], protocol: tcp}",
    "  other: {port: $tls, address: 127.0.0.1, hosts: [b.example.com], protocol: tcp, tls: {certificates: [one]}}",
    "  other: {port: $tls, address: 127.0.0.1, protocol: tcp}\n  web: {port: $web, address: 127.0.0.1}",
    "  other: {port: $other_port, address: 127.0.0.1, protocol: udp}",
)


def test_connections_and_sessions_survive_changes_of_other_objects(
    tmp_path: Path, servers: dict[str, EchoServer | DatagramServer]
) -> None:
    ports = {name: free_port() for name in ("raw", "tls", "udp", "other_port", "web")}
    pair = authority().issue("a.example.com")
    folder = write(tmp_path / "gateway", {"one.crt": pair[0], "one.key": pair[1]})
    context = ssl.create_default_context(cadata=authority().pem.decode())
    with XdsThread() as xds, Envoy(bootstrap(xds.port), tmp_path) as envoy, ExitStack() as stack:

        def publish(number: int) -> None:
            text = filled(
                CHANGING.replace("$listener", OTHERS[number]),
                one=servers["one"].address,
                dns=servers["dns"].address,
                other=servers["two"].address if number % 2 else "127.0.0.1:1",
                version=number,
                **ports,
            )
            xds.publish(compiled(write(folder, gateway=text)).snapshot)

        publish(0)
        envoy.ready()
        raw = stack.enter_context(wait_for(lambda: _connect(ports["raw"]), "the port"))
        secure = stack.enter_context(
            context.wrap_socket(_connect(ports["tls"]), server_hostname="a.example.com")
        )
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.settimeout(30)
        server = servers["dns"]
        assert isinstance(server, DatagramServer)
        before = len(server.peers)
        for number in (*range(1, len(OTHERS)), 0):
            assert (_echo(raw), _echo(secure)) == ("one: ping", "one: ping")
            datagrams.sendto(b"x", ("127.0.0.1", ports["udp"]))
            assert datagrams.recv(100) == b"dns: x"
            count = sum(envoy.stats(UPDATES).values())
            publish(number)
            wait_for(lambda count=count: sum(envoy.stats(UPDATES).values()) > count, "the change")
            # the test's Envoy closes drained connections after a second
            wait_for(lambda: not any(envoy.stats(DRAINING).values()), "the end of every drain")
        assert (_echo(raw), _echo(secure)) == ("one: ping", "one: ping")
        assert len(set(server.peers[before:])) == 1
