"""How traffic reaches the endpoints: balancing, health, limits, protocols, addresses, TLS."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.certificates import authority
from tests.support.folder import Files
from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port
from tests.support.sockets import SocketServer, answering, http, read_head, server_context
from tests.support.wait import wait_for

HEAD = "listeners: {http: {port: $port, address: 127.0.0.1}}\n"


def _route(*names: str) -> str:
    return "routes:\n" + "".join(
        f"  {name}: {{path: /{name}/*, upstream: {name}, timeout: 20s}}\n" for name in names
    )


def _served(gateway: Gateway, path: str, count: int) -> Counter[str]:
    with gateway.client() as client:
        return Counter(client.get(path).json()["backend"] for _ in range(count))


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Backend(name)) for name in ("a", "b", "c")]


class Start(Protocol):
    """Starts a gateway with upstreams, and a route to each that is named: ``/NAME/*``."""

    def __call__(
        self, upstreams: str, *names: str, files: Files | None = None, **values: object
    ) -> Gateway: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with Gateways(tmp_path) as gateways:

        def start(upstreams: str, *names: str, files: Files | None = None, **values: object) -> Gateway:
            return gateways.start(HEAD + upstreams + _route(*names), files=files, **values)

        yield start


def test_every_way_of_balancing_uses_every_endpoint_by_weight(start: Start, backends: list[Backend]) -> None:
    ways = ("round_robin", "least_request", "random", "maglev", "ring_hash")
    addresses = [backend.address for backend in backends]
    yaml = "upstreams:\n"
    for way in ways:
        weight = 1 if way == "random" else 3
        endpoints = f'["{addresses[0]}", {{address: "{addresses[1]}", weight: {weight}}}]'
        yaml += f"  {way.replace('_', '-')}: {{endpoints: {endpoints}, load_balancing: {way}}}\n"
    gateway = start(yaml, *(way.replace("_", "-") for way in ways))
    for way in ways:
        seen = _served(gateway, f"/{way.replace('_', '-')}/", 80)
        assert set(seen) == {"a", "b"}, way
        if way in ("round_robin", "least_request"):
            assert seen["b"] > seen["a"], way
    assert _served(gateway, "/round-robin/", 80) == {"a": 20, "b": 60}


def test_a_lower_priority_is_used_when_the_higher_one_fails(start: Start, backends: list[Backend]) -> None:
    first, second, _ = backends
    gateway = start(
        """
upstreams:
  prio:
    endpoints: ["$first", {address: "$second", priority: 1}]
    health_check: {path: /healthz, interval: 100ms, timeout: 1s, unhealthy_after: 1, healthy_after: 1}
""",
        "prio",
        first=first.address,
        second=second.address,
    )
    wait_for(lambda: first.seen and second.seen, "health checks")
    wait_for(lambda: set(_served(gateway, "/prio/", 5)) == {"a"}, "the first priority")
    first.status = 500
    wait_for(lambda: set(_served(gateway, "/prio/", 5)) == {"b"}, "the second priority")
    first.status = 200
    wait_for(lambda: set(_served(gateway, "/prio/", 5)) == {"a"}, "the first priority again")


def test_zones_share_the_traffic_by_their_endpoints_weights(start: Start, backends: list[Backend]) -> None:
    a, b, c = (backend.address for backend in backends)
    check = (
        "health_check: {path: /healthz, interval: 100ms, timeout: 1s, unhealthy_after: 1, healthy_after: 1}"
    )
    gateway = start(
        """
upstreams:
  zones:
    endpoints: [{address: "$a", zone: eu/a}, {address: "$b", zone: eu/a}, {address: "$c", zone: eu/b, weight: 2}]
    load_balancing: {policy: round_robin, locality_weighted: true}
    $check
""",
        "zones",
        a=a,
        b=b,
        c=c,
        check=check,
    )
    wait_for(lambda: set(_served(gateway, "/zones/", 12)) == {"a", "b", "c"}, "all endpoints")
    seen = _served(gateway, "/zones/", 80)
    assert seen["a"] == pytest.approx(20, abs=3)
    assert seen["c"] == pytest.approx(40, abs=3)
    backends[2].status = 500
    wait_for(lambda: set(_served(gateway, "/zones/", 12)) == {"a", "b"}, "the other zone alone")


def test_a_health_check_takes_the_statuses_and_the_host_that_are_said(
    start: Start, backends: list[Backend]
) -> None:
    checked = backends[0]
    checked.status = 202
    gateway = start(
        """
upstreams:
  picky:
    endpoints: ["$checked"]
    panic_threshold: 0%
    health_check:
      {path: "/ready?deep=1", host: picky.internal, expected_statuses: [202, 429], interval: 50ms, unhealthy_after: 1, healthy_after: 1}
""",
        "picky",
        checked=checked.address,
    )
    asked = wait_for(lambda: [one for one in checked.seen if one["path"] == "/ready?deep=1"], "a check")[0]
    assert asked["headers"]["host"] == "picky.internal"
    gateway.until("/picky/", 202)
    checked.status = 200
    gateway.until("/picky/", 503)
    checked.status = 429
    gateway.until("/picky/", 429)


@pytest.mark.parametrize(
    ("rule", "status"), [("consecutive_connect_failures: 2", None), ("consecutive_gateway_failures: 2", 503)]
)
def test_endpoints_are_ejected_by_other_rules(
    start: Start, backends: list[Backend], rule: str, status: int | None
) -> None:
    bad, good, _ = backends
    if status is None:
        bad.stop()
    else:
        bad.status = status
    gateway = start(
        """
upstreams:
  outlier:
    endpoints: ["$bad", "$good"]
    load_balancing: round_robin
    outlier_detection: {consecutive_5xx: 1000, $rule, interval: 100ms, eject_for: 10m}
""",
        "outlier",
        bad=bad.address,
        good=good.address,
        rule=rule,
    )
    with gateway.client() as client:
        wait_for(lambda: {client.get("/outlier/").status_code for _ in range(6)} == {200}, "the ejection")


def test_no_endpoint_is_503_with_its_reason(start: Start) -> None:
    gateway = start("upstreams: {none: {endpoints: []}}\n", "none")
    answer = gateway.get("/none/")
    assert (answer.status_code, answer.json()["reason"]) == (503, "no_healthy_upstream")


def test_a_tcp_health_check_takes_a_closed_port_out(start: Start, backends: list[Backend]) -> None:
    dead = free_port()
    gateway = start(
        """
upstreams:
  tcp:
    endpoints: ["127.0.0.1:$dead", "$backends"]
    panic_threshold: 0%
    health_check: {type: tcp, interval: 100ms, timeout: 1s, unhealthy_after: 1, healthy_after: 1}
""",
        "tcp",
        dead=dead,
        backends=backends[0].address,
    )

    def all_well() -> bool:
        with gateway.client() as client:
            return {client.get("/tcp/").status_code for _ in range(6)} == {200}

    wait_for(all_well, "the closed port to be left out")


def test_an_endpoint_that_keeps_failing_is_ejected(start: Start, backends: list[Backend]) -> None:
    bad, good, _ = backends
    bad.status = 500
    gateway = start(
        """
upstreams:
  outlier:
    endpoints: ["$bad", "$good"]
    load_balancing: round_robin
    outlier_detection: {consecutive_5xx: 3, interval: 100ms, eject_for: 10m, max_ejected: 50%}
""",
        "outlier",
        bad=bad.address,
        good=good.address,
    )
    wait_for(lambda: set(_served(gateway, "/outlier/", 6)) == {"b"}, "the ejection")
    assert gateway.envoy.stats("cluster.outlier.outlier_detection.ejections_active") == {
        "cluster.outlier.outlier_detection.ejections_active": 1
    }


def test_a_circuit_breaker_answers_503_at_once(start: Start, backends: list[Backend]) -> None:
    slow = backends[0]
    gateway = start(
        """
upstreams:
  breaker: {endpoints: ["$slow"], circuit_breaker: {max_connections: 1, max_pending: 1}}
""",
        "breaker",
        slow=slow.address,
    )
    slow.release = threading.Event()
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(gateway.get("/breaker/").status_code))
        for _ in range(2)
    ]
    # A request waits for its connection too. If both began at once, the second would find the only place taken.
    for thread, gauge in zip(threads, ("upstream_rq_active", "upstream_rq_pending_active"), strict=True):
        thread.start()
        wait_for(lambda gauge=gauge: _gauge(gateway, gauge) == 1, f"a request that counts as {gauge}")
    assert _gauge(gateway, "upstream_rq_active") == 1
    answer = gateway.get("/breaker/")
    assert (answer.status_code, answer.json()["reason"]) == (503, "upstream_overflow")
    slow.release.set()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]


def _gauge(gateway: Gateway, name: str) -> int:
    return sum(gateway.envoy.stats(f"^cluster.breaker.{name}$").values())


def test_an_endpoint_that_refuses_is_503_and_one_that_breaks_off_is_502(start: Start) -> None:
    def break_off(connection: socket.socket) -> None:
        read_head(connection)

    def nonsense(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"this is not HTTP\r\n\r\n")

    with SocketServer(break_off) as broken, SocketServer(nonsense) as odd:
        gateway = start(
            """
upstreams:
  refused: {endpoints: ["127.0.0.1:$closed"]}
  broken: {endpoints: ["$broken"]}
  odd: {endpoints: ["$odd"]}
""",
            "refused",
            "broken",
            "odd",
            closed=free_port(),
            broken=broken.address,
            odd=odd.address,
        )
        for name, status, reason in (
            ("refused", 503, "upstream_unreachable"),
            ("broken", 502, "upstream_reset"),
            ("odd", 502, "upstream_protocol_error"),
        ):
            answer = gateway.get(f"/{name}/")
            assert (answer.status_code, answer.json()["reason"]) == (status, reason)
            assert answer.headers["content-type"] == "application/problem+json"


def test_endpoints_may_be_ipv6_host_names_and_unix_sockets(
    start: Start, backends: list[Backend], tmp_path: Path
) -> None:
    sock = tmp_path / "s.sock"
    with (
        SocketServer(answering(b"unix"), path=sock) as unix,
        SocketServer(answering(b"six"), host="::1") as six,
    ):
        gateway = start(
            """
upstreams:
  unix: {endpoints: ["$unix"]}
  six: {endpoints: ["$six"]}
  name: {endpoints: ["localhost:$name"], dns_family: v4}
""",
            "unix",
            "six",
            "name",
            unix=unix.address,
            six=six.address,
            name=backends[0].port,
        )
        assert gateway.get("/unix/").text.startswith("unix|GET /unix/")
        assert gateway.get("/six/").text.startswith("six|GET /six/")
        assert gateway.until("/name/", 200).json()["backend"] == "a"


def test_the_proxy_protocol_tells_the_endpoint_the_clients_address(start: Start) -> None:
    def proxied(connection: socket.socket) -> None:
        line = connection.recv(4096)
        head = line if b"\r\n\r\n" in line else line + read_head(connection)
        connection.sendall(http(head))

    with SocketServer(proxied) as server:
        gateway = start(
            "upstreams: {v1: {endpoints: [$server], proxy_protocol: v1}}\n", "v1", server=server.address
        )
        assert gateway.get("/v1/").text.startswith("PROXY TCP4 127.0.0.1 127.0.0.1 ")


def test_the_proxy_protocol_in_binary_goes_before_tls(start: Start, tmp_path: Path) -> None:
    """Another gateway is the endpoint: it expects the same, and tells the address that it was told."""
    certificate, key = authority().issue("behind.internal")
    text = """
listeners:
  tls: {port: $port, address: 127.0.0.1, proxy_protocol: true, tls: {certificates: [own]}}
secrets: {own: {certificate: {file: own.crt}, private_key: {file: own.key}}}
routes:
  all: {path: /*, respond: {body: x}, response_headers: {set: {x-client: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}}
"""
    with Gateways(tmp_path / "behind") as others:
        behind = others.start(text, files={"own.crt": certificate, "own.key": key})
        gateway = start(
            """
upstreams:
  told:
    endpoints: ["127.0.0.1:$behind"]
    proxy_protocol: v2
    protocol: http2
    tls: {sni: behind.internal, ca: {file: ca.crt}}
  untold:
    endpoints: ["127.0.0.1:$behind"]
    tls: {sni: behind.internal, ca: {file: ca.crt}}
""",
            "told",
            "untold",
            files={"ca.crt": authority().pem},
            behind=behind.port,
        )
        answer = gateway.get("/told/")
        assert (answer.status_code, answer.headers["x-client"]) == (200, "127.0.0.1")
        assert gateway.get("/untold/").status_code == 503


def test_a_connection_may_be_closed_after_one_request(start: Start) -> None:
    def keep_open(connection: socket.socket) -> None:
        while read_head(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with SocketServer(keep_open) as kept, SocketServer(keep_open) as once:
        gateway = start(
            """
upstreams:
  kept: {endpoints: ["$kept"]}
  once: {endpoints: ["$once"], max_requests_per_connection: 1}
""",
            "kept",
            "once",
            kept=kept.address,
            once=once.address,
        )
        with gateway.client() as client:
            for _ in range(5):
                assert client.get("/kept/").text == client.get("/once/").text == "ok"
        assert (kept.connections, once.connections) == (1, 5)


def test_tls_to_endpoints_is_verified(start: Start, tmp_path: Path) -> None:
    certificate, key = authority().issue("orders.internal")
    client_certificate, client_key = authority().issue("gateway.internal")
    plain = server_context(certificate, key, tmp_path / "plain")
    mutual = server_context(certificate, key, tmp_path / "mutual", ca=authority().pem)
    with (
        SocketServer(answering(b"tls"), tls=plain) as server,
        SocketServer(answering(b"mtls"), tls=mutual) as strict,
    ):
        ca = "ca: {file: ca.crt}"
        gateway = start(
            """
secrets: {own: {certificate: {file: own.crt}, private_key: {file: own.key}}}
upstreams:
  right: {endpoints: ["$server"], tls: {sni: orders.internal, $ca}}
  wrong-name: {endpoints: ["$server"], tls: {sni: other.internal, $ca}}
  other-name: {endpoints: ["$server"], tls: {sni: x.internal, subject_alt_names: [orders.internal], $ca}}
  wrong-ca: {endpoints: ["$server"], tls: {sni: orders.internal}}
  blind: {endpoints: ["$server"], tls: {verify: false}}
  mutual: {endpoints: ["$strict"], tls: {sni: orders.internal, client_certificate: own, $ca}}
  not-mutual: {endpoints: ["$strict"], tls: {sni: orders.internal, $ca}}
""",
            "right",
            "wrong-name",
            "other-name",
            "wrong-ca",
            "blind",
            "mutual",
            "not-mutual",
            files={"ca.crt": authority().pem, "own.crt": client_certificate, "own.key": client_key},
            server=server.address,
            ca=ca,
            strict=strict.address,
        )
        answers = {
            name: gateway.get(f"/{name}/")
            for name in ("right", "wrong-name", "other-name", "wrong-ca", "blind", "mutual", "not-mutual")
        }
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "right": 200,
        "wrong-name": 503,
        "other-name": 200,
        "wrong-ca": 503,
        "blind": 200,
        "mutual": 200,
        "not-mutual": answers["not-mutual"].status_code,
    }
    assert answers["not-mutual"].status_code in (502, 503)
    assert answers["mutual"].text.startswith("mtls|")
    assert answers["wrong-ca"].json()["reason"] == "upstream_unreachable"


def test_http2_and_auto_reach_an_endpoint_in_http2(start: Start, tmp_path: Path) -> None:
    """Another gateway is the endpoint: it tells which protocol it was spoken to in."""
    certificate, key = authority().issue("behind.internal")
    text = """
listeners:
  plain: {port: $port, address: 127.0.0.1}
  tls: {port: $tls, address: 127.0.0.1, tls: {certificates: [own]}}
secrets: {own: {certificate: {file: own.crt}, private_key: {file: own.key}}}
routes:
  all: {path: /*, respond: {body: x}, response_headers: {set: {x-protocol: "%PROTOCOL%"}}}
"""
    with Gateways(tmp_path / "behind") as others:
        behind = others.start(text, files={"own.crt": certificate, "own.key": key}, tls=free_port())
        ports = [one.port for one in behind.compiled.gateway.sections.listeners.values()]
        tls = "tls: {sni: behind.internal, ca: {file: ca.crt}}"
        gateway = start(
            """
upstreams:
  http1: {endpoints: ["127.0.0.1:$plain"]}
  http2: {endpoints: ["127.0.0.1:$plain"], protocol: http2}
  auto: {endpoints: ["127.0.0.1:$secure"], protocol: auto, $tls}
  tls1: {endpoints: ["127.0.0.1:$secure"], $tls}
""",
            "http1",
            "http2",
            "auto",
            "tls1",
            files={"ca.crt": authority().pem},
            plain=ports[0],
            secure=ports[1],
            tls=tls,
        )
        found = {
            name: gateway.get(f"/{name}/").headers["x-protocol"]
            for name in ("http1", "http2", "auto", "tls1")
        }
    assert found == {"http1": "HTTP/1.1", "http2": "HTTP/2", "auto": "HTTP/2", "tls1": "HTTP/1.1"}


def test_with_most_endpoints_unhealthy_all_are_used_unless_panic_is_off(
    start: Start, backends: list[Backend]
) -> None:
    sick, other, _ = backends
    sick.status = other.status = 503
    check = "health_check: {path: /healthz, interval: 100ms, timeout: 1s, unhealthy_after: 1}"
    endpoints = f'endpoints: ["{sick.address}", "{other.address}"]'
    gateway = start(
        """
upstreams:
  panic: {$endpoints, $check}
  calm: {$endpoints, panic_threshold: 0%, $check}
""",
        "panic",
        "calm",
        endpoints=endpoints,
        check=check,
    )

    def reasons() -> tuple[str | None, str | None]:
        answers: list[httpx.Response] = [gateway.get("/panic/"), gateway.get("/calm/")]
        return answers[0].headers.get("x-gateway-reason"), answers[1].headers.get("x-gateway-reason")

    wait_for(lambda: reasons() == (None, "no_healthy_upstream"), "the health checks to fail")
