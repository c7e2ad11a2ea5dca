"""Ports of the gateway: TLS, HTTP/2, HTTP/3, trusted proxies, limits, and the tricks that paths are used for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import h2.connection
import h2.events
import httpx
import pytest

from tests.support.backend import Backend
from tests.support.certificates import authority
from tests.support.gateway import Gateway, Gateways
from tests.support.http3 import http3
from tests.support.ports import free_port
from tests.support.wait import wait_for


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    names = (
        "plain",
        "proxied",
        "strict",
        "kept",
        "secure",
        "mutual",
        "to_https",
        "proxy_protocol",
        "quic",
        "to_443",
        "old",
    )
    return {name: free_port() for name in names}


YAML = """
listeners:
  plain: {port: $plain, address: 127.0.0.1}
  proxied: {port: $proxied, address: 127.0.0.1, trusted_proxies: 1}
  strict:
    port: $strict
    address: 127.0.0.1
    escaped_slashes: reject
    underscores_in_headers: reject
    timeouts: {headers: 1s, request: 2s}
    limits: {max_headers: 2KiB, max_header_count: 20, max_body: 1KiB, max_connections: 4}
  kept:
    port: $kept
    address: 127.0.0.1
    escaped_slashes: keep
    merge_slashes: false
    underscores_in_headers: allow
    server_name: shop
    limits: {max_requests_per_connection: 2}
  secure: {port: $secure, address: 127.0.0.1, tls: {certificates: [one, two], minimum_version: "1.3"}}
  mutual:
    port: $mutual
    address: 127.0.0.1
    tls: {certificates: [one], client_certificate: {ca: {file: ca.crt}, subject_alt_names: ["*.clients.test"]}}
  to-https: {port: $to_https, address: 127.0.0.1, redirect_to_https: $secure}
  old: {port: $old, address: 127.0.0.1, http10: true}
  to-443: {port: $to_443, address: 127.0.0.1, redirect_to_https: true}
  proxy-protocol: {port: $proxy_protocol, address: 127.0.0.1, proxy_protocol: true}
  quic: {port: $quic, address: 127.0.0.1, http3: true, tls: {certificates: [one]}}
secrets:
  one: {certificate: {file: one.crt}, private_key: {file: one.key}}
  two: {certificate: {file: two.crt}, private_key: {file: two.key}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  public: {path: /public/*, upstream: echo}
  admin: {path: /admin/*, respond: {status: 403, body: admin}}
  rest: {path: /*, upstream: echo}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend, ports: dict[str, int]) -> Gateway:
    files = {"ca.crt": authority().pem}
    for name in ("one", "two"):
        files[f"{name}.crt"], files[f"{name}.key"] = authority().issue(f"{name}.example.com")
    return gateways.start(YAML, files=files, echo=backend.address, **ports)


def _raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received and (more := connection.recv(65536)):
            received += more
        return received


def _get(port: int, target: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return _raw(port, f"GET {target} HTTP/1.1\r\nhost: x.test\r\n{lines}\r\n".encode())


def _trusting(certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority().pem.decode())
    if certificate:
        context.load_cert_chain(*certificate)
    return context


# --- paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/public/../admin/x",
        "/public/%2e%2e/admin/x",
        "//admin/x",
        "/./admin/x",
        "/public/..//admin/x",
        "/%61dmin/x",
    ],
)
def test_a_trick_in_the_path_does_not_reach_round_a_prefix(
    gateway: Gateway, ports: dict[str, int], target: str
) -> None:
    assert _get(ports["plain"], target).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("target", ["/public/%2e%2e;/admin/x", "/public/.%2e;x=1/admin/x", "/public/%2e;/x"])
def test_a_dot_segment_with_parameters_is_refused(
    gateway: Gateway, ports: dict[str, int], target: str
) -> None:
    answer = _get(ports["plain"], target)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"x-gateway-reason: bad_path" in answer


@pytest.mark.parametrize("target", ["/public/..;/admin/x", "/public/..;x=1/admin/x"])
def test_a_plain_dot_segment_with_parameters_leads_nowhere_else(
    gateway: Gateway, ports: dict[str, int], target: str
) -> None:
    assert _get(ports["plain"], target)[9:12] in (b"400", b"403")


@pytest.mark.parametrize("target", ["/public%2F..%2Fadmin/x", "/public/..%2fadmin/x", "/public%5c..%5cadmin"])
def test_an_escaped_slash_is_redirected_to_the_plain_form(
    gateway: Gateway, ports: dict[str, int], target: str
) -> None:
    answer = _get(ports["plain"], target)
    assert answer.startswith(b"HTTP/1.1 307")
    assert b"%2" not in answer.split(b"location: ")[1].split(b"\r\n")[0].lower()
    strict = _get(ports["strict"], target)
    assert strict.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "target",
    ["/%2Fevil.test", "/%5Cevil.test", "//evil.test%2Fx", "/a/..%2F%2Fevil.test", "/%2Fa/%2e%2e/evil.test"],
)
def test_an_escaped_slash_never_leads_to_another_host(
    gateway: Gateway, ports: dict[str, int], target: str
) -> None:
    assert b"\r\nlocation: /evil.test" in _get(ports["plain"], target)


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/%2F", "/"),
        ("/%5C", "/"),
        ("/%2f%2F", "/"),
        ("/%2F/", "/"),
        ("/%2F?x=1&y=//", "/?x=1&y=//"),
        ("/%2Fpublic", "/public"),
        ("/public/%2F", "/public/"),
    ],
)
def test_an_escaped_slash_leads_to_a_place_that_a_client_can_follow(
    gateway: Gateway, ports: dict[str, int], target: str, location: str
) -> None:
    answer = _get(ports["plain"], target)
    assert answer.startswith(b"HTTP/1.1 307")
    assert f"\r\nlocation: {location}\r\n".encode() in answer


@pytest.mark.parametrize(
    "offered",
    [
        "TLS/1.2",  # the default of Apache HttpClient 5.4
        "TLS/1.2, HTTP/1.1",
        "TLS/1.0",
        "h2c",
        "something/else",
        "websockets",
        "web",
    ],
)
def test_an_upgrade_that_is_not_offered_is_ignored(
    gateway: Gateway, ports: dict[str, int], backend: Backend, offered: str
) -> None:
    answer = _get(ports["plain"], "/upgrade", "connection: Upgrade", f"upgrade: {offered}")
    assert answer.startswith(b"HTTP/1.1 200")
    assert not {"upgrade", "connection"} & set(backend.seen[-1]["headers"])


@pytest.mark.parametrize("offered", ["websocket", "WebSocket", "TLS/1.2, websocket"])
def test_a_websocket_is_refused_where_the_route_has_none(
    gateway: Gateway, ports: dict[str, int], offered: str
) -> None:
    answer = _get(ports["plain"], "/upgrade", "connection: Upgrade", f"upgrade: {offered}")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"upgrade_not_allowed" in answer


def test_http_1_0_is_answered_where_it_is_allowed(
    gateway: Gateway, ports: dict[str, int], backend: Backend
) -> None:
    assert _raw(ports["old"], b"GET /a HTTP/1.0\r\nhost: old.test\r\n\r\n").startswith(b"HTTP/1.0 200")
    assert backend.seen[-1]["headers"]["host"] == "old.test"
    assert _raw(ports["old"], b"GET /a HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")
    assert backend.seen[-1]["headers"]["host"] == "localhost"
    refused = _body(ports["plain"], "/a", "1.0")
    assert refused.startswith(b"HTTP/1.1 426")
    assert b'"detail":"Use HTTP/1.1 or later."' in refused


def test_slashes_may_be_kept_as_they_are(gateway: Gateway, ports: dict[str, int], backend: Backend) -> None:
    assert b'"path": "/public/a%2Fb"' in _body(ports["kept"], "/public/a%2Fb")
    assert b'"path": "/public//b"' in _body(ports["kept"], "/public//b")


def _body(port: int, target: str, version: str = "1.1") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"GET {target} HTTP/{version}\r\nhost: x.test\r\nconnection: close\r\n\r\n".encode()
        )
        received = b""
        while more := connection.recv(65536):
            received += more
        return received


# --- headers ----------------------------------------------------------------------------------------------------


def test_a_header_with_an_underscore_is_refused_unless_allowed(
    gateway: Gateway, ports: dict[str, int], backend: Backend
) -> None:
    refused = _get(ports["strict"], "/public/x", "x_consumer: evil")
    assert refused.startswith(b"HTTP/1.1 400")
    assert b'"x_other": "fine"' in _body_with(ports["kept"], "x_other: fine")


def _body_with(port: int, header: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"GET /public/x HTTP/1.1\r\nhost: x\r\n{header}\r\nconnection: close\r\n\r\n".encode()
        )
        received = b""
        while more := connection.recv(65536):
            received += more
        return received


def test_the_client_address_comes_from_the_trusted_proxy_only(
    gateway: Gateway, ports: dict[str, int]
) -> None:
    spoofed = {"x-forwarded-for": "203.0.113.1, 198.51.100.2"}
    with httpx.Client(timeout=30) as client:
        plain = client.get(f"http://127.0.0.1:{ports['plain']}/public/x", headers=spoofed).json()["headers"]
        proxied = client.get(f"http://127.0.0.1:{ports['proxied']}/public/x", headers=spoofed).json()[
            "headers"
        ]
    assert plain["x-envoy-external-address"] == "127.0.0.1"
    assert proxied["x-envoy-external-address"] == "198.51.100.2"


def test_a_client_cannot_tell_upstreams_where_it_came_from(gateway: Gateway, ports: dict[str, int]) -> None:
    """What is believed from a trusted proxy is taken away from anybody else."""
    claims = {"forwarded": "for=203.0.113.1", "x-forwarded-host": "evil.test", "x-real-ip": "203.0.113.1"}
    never = {"x-original-url": "/admin/x", "x-rewrite-url": "/admin/x", "x-envoy-attempt-count": "7"}
    never |= {
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-forwarded-client-cert": "By=x",
    }
    with httpx.Client(timeout=30) as client:
        plain, proxied = (
            client.get(f"http://127.0.0.1:{ports[name]}/public/x", headers=claims | never).json()["headers"]
            for name in ("plain", "proxied")
        )
    assert {name: plain.get(name) for name in (*claims, *never)} == dict.fromkeys((*claims, *never))
    assert {name: proxied.get(name) for name in claims} == claims
    assert {name: proxied.get(name) for name in never} == dict.fromkeys(never)
    assert plain["x-forwarded-proto"] == "http"


def test_the_proxy_protocol_tells_the_clients_address(gateway: Gateway, ports: dict[str, int]) -> None:
    request = b"GET /public/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", ports["proxy_protocol"]), timeout=30) as connection:
        connection.sendall(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n" + request)
        received = b""
        while more := connection.recv(65536):
            received += more
    assert b'"x-envoy-external-address": "203.0.113.7"' in received


@pytest.mark.parametrize(
    "headers", [("x-large: " + "x" * 4000,), tuple(f"x-{number}: 1" for number in range(30))]
)
def test_headers_that_are_too_large_or_too_many_are_431(
    gateway: Gateway, ports: dict[str, int], headers: tuple[str, ...]
) -> None:
    assert _get(ports["strict"], "/public/x", *headers).startswith(b"HTTP/1.1 431")


# --- bodies and time --------------------------------------------------------------------------------------------


def test_a_body_above_the_listeners_limit_is_413(gateway: Gateway, ports: dict[str, int]) -> None:
    answer = httpx.post(f"http://127.0.0.1:{ports['strict']}/public/x", content=b"x" * 2000, timeout=30)
    assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("size", "status"), [(1024, b"200"), (1025, b"413"), (16000, b"413"), (40000, b"413")]
)
@pytest.mark.parametrize("told", [True, False])
def test_a_body_in_frames_that_end_it_is_limited_too(
    gateway: Gateway, ports: dict[str, int], size: int, status: bytes, told: bool
) -> None:
    """HTTP/2 ends a request with the frame that has its last bytes, which Envoy's own buffer does not count."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    names = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": "/public/x"}
    connection.send_headers(1, [*names.items(), *([("content-length", str(size))] if told else [])])
    for start in range(0, size, 16384):
        connection.send_data(1, b"x" * min(16384, size - start), end_stream=start + 16384 >= size)
    with socket.create_connection(("127.0.0.1", ports["strict"]), timeout=30) as transport:
        transport.sendall(connection.data_to_send())
        while True:
            for event in connection.receive_data(transport.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    assert dict(event.headers)[b":status"] == status
                    return
            transport.sendall(connection.data_to_send())


def test_a_request_that_does_not_arrive_is_408(gateway: Gateway, ports: dict[str, int]) -> None:
    head = b"POST /public/x HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\npart"
    for data in (b"GET /public/x HTTP/1.1\r\nhost: x\r\nx-never-en", head):
        assert _raw(ports["strict"], data).startswith(b"HTTP/1.1 408")


def test_a_connection_ends_after_its_last_request(gateway: Gateway, ports: dict[str, int]) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{ports['kept']}", timeout=30) as client:
        answers = [client.get("/public/x") for _ in range(3)]
    assert [answer.headers.get("connection") for answer in answers] == [None, "close", None]
    assert {answer.headers["server"] for answer in answers} == {"shop"}


def test_connections_above_the_limit_are_closed(gateway: Gateway, ports: dict[str, int]) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection(("127.0.0.1", ports["strict"]), timeout=30))
        wait_for(lambda: _connections(gateway, ports["strict"]) >= 4, "four connections")
        with socket.create_connection(("127.0.0.1", ports["strict"]), timeout=30) as fifth:
            assert fifth.recv(1) == b""


def _connections(gateway: Gateway, port: int) -> int:
    name = rf"^connection_limit.127_0_0_1_{port}.active_connections$"
    return sum(gateway.envoy.stats(name).values())


# --- TLS --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one", "two"])
def test_the_certificate_is_chosen_by_the_servers_name(
    gateway: Gateway, ports: dict[str, int], name: str
) -> None:
    with (
        socket.create_connection(("127.0.0.1", ports["secure"]), timeout=30) as connection,
        _trusting().wrap_socket(connection, server_hostname=f"{name}.example.com") as tls,
    ):
        certificate = tls.getpeercert() or {}
        assert ("DNS", f"{name}.example.com") in certificate["subjectAltName"]
        assert tls.version() == "TLSv1.3"


def test_an_older_tls_version_is_refused(gateway: Gateway, ports: dict[str, int]) -> None:
    context = _trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", ports["secure"]), timeout=30) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname="one.example.com")


def test_clients_must_show_a_certificate_of_a_known_name(
    gateway: Gateway, ports: dict[str, int], tmp_path: Path
) -> None:
    def ask(*names: str) -> bytes:
        pair = None
        if names:
            certificate, key = authority().issue(*names)
            pair = (tmp_path / "client.crt", tmp_path / "client.key")
            pair[0].write_bytes(certificate)
            pair[1].write_bytes(key)
        with (
            socket.create_connection(("127.0.0.1", ports["mutual"]), timeout=30) as connection,
            _trusting(pair).wrap_socket(connection, server_hostname="one.example.com") as tls,
        ):
            tls.sendall(b"GET /public/x HTTP/1.1\r\nhost: x\r\n\r\n")
            return tls.recv(65536)

    assert ask("a.clients.test").startswith(b"HTTP/1.1 200")
    for names in ((), ("a.others.test",)):
        with pytest.raises(OSError, match=r"."):
            assert ask(*names) == b"refused"


def test_http2_is_spoken_where_the_client_offers_it(gateway: Gateway, ports: dict[str, int]) -> None:
    context = _trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", ports["secure"]), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname="one.example.com") as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("host", ["a.example.com:8080", "a.example.com", "a.example.com:80"])
def test_plain_http_is_sent_to_the_port_of_https(gateway: Gateway, ports: dict[str, int], host: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{ports['to_443']}/a?b=1", headers={"host": host}, timeout=30)
    assert (answer.status_code, answer.headers["location"]) == (308, "https://a.example.com/a?b=1")


def test_plain_http_is_sent_to_https(gateway: Gateway, ports: dict[str, int]) -> None:
    answer = httpx.get(f"http://127.0.0.1:{ports['to_https']}/a?b=1", timeout=30)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://127.0.0.1:{ports['secure']}/a?b=1"


# --- HTTP/3 -----------------------------------------------------------------------------------------------------


async def test_http3_answers_and_http2_tells_of_it(
    gateway: Gateway, ports: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    async with http3(ports["quic"], "one.example.com", tmp_path / "ca.pem") as connection:
        connection.ask("one.example.com", "/public/x")
        await asyncio.wait_for(connection.done, 30)
        assert connection.headers[b":status"] == b"200"
        assert b'"path": "/public/x"' in connection.body
    async with httpx.AsyncClient(verify=_trusting(), timeout=30) as client:
        url = f"https://127.0.0.1:{ports['quic']}/public/x"
        answer = await client.get(url, headers={"host": "x"}, extensions={"sni_hostname": "one.example.com"})
    assert answer.headers["alt-svc"] == f'h3=":{ports["quic"]}"; ma=86400'
