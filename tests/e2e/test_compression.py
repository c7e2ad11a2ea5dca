"""compression through a real Envoy: which bodies are compressed, how, and what their validators are."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.sockets import SocketServer, read_head

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  compressed: {path: /compressed, upstream: echo, policies: {compression: true}}
  own: {path: /own, upstream: echo, policies: {compression: {content_types: [Application/X-Own, +cbor, +json], min_size: 1KB}}}
  more: {path: /more, upstream: echo, policies: {compression: {content_types: [default, image/bmp], algorithms: [zstd, gzip]}}}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend) -> Gateway:
    return gateways.start(YAML, echo=backend.address)


@pytest.fixture
def echo(backend: Backend) -> Iterator[Backend]:
    yield backend
    backend.headers, backend.body, backend.status = {}, None, 200


def read(gateway: Gateway, path: str, accepted: str) -> tuple[httpx.Response, bytes]:
    """A response, and its body as it was sent."""
    headers = {"accept-encoding": accepted}
    with gateway.client() as client, client.stream("GET", path, headers=headers) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize(
    ("accepted", "status", "headers", "encoding"),
    [
        ("gzip", 200, {"content-type": "application/json; charset=utf-8"}, "gzip"),
        ("gzip", 200, {"content-type": "image/png"}, None),
        ("gzip", 200, {"content-type": "application/problem+json"}, "gzip"),
        ("gzip, br, zstd", 200, {"content-type": "Application/Vnd.Acme.Order+JSON; charset=utf-8"}, "zstd"),
        ("gzip, zstd", 200, {"content-type": "application/x-own+json"}, "gzip"),
        ("gzip, br, zstd", 200, {"content-type": "text/event-stream"}, "br"),
        ("zstd", 200, {"content-type": "text/event-stream"}, None),
        ("zstd, gzip", 200, {"content-type": "application/x-ndjson"}, "gzip"),
        ("gzip, br, zstd", 200, {"content-type": "application/grpc"}, None),
        ("gzip, br, zstd", 200, {"content-type": "application/grpc-web+proto"}, None),
        ("zstd", 200, {"content-type": "application/grpc-web+json"}, None),
        ("gzip", 206, {"content-type": "text/plain", "content-range": "bytes 0-999/5000"}, None),
        ("gzip", 200, {"content-type": "text/plain", "cache-control": "no-transform"}, None),
        ("gzip", 200, {"content-type": "text/plain", "content-encoding": "x-own"}, None),
    ],
)  # fmt: skip
def test_only_what_may_be_compressed_is(
    gateway: Gateway, echo: Backend, accepted: str, status: int, headers: dict[str, str], encoding: str | None
) -> None:
    echo.headers, echo.body, echo.status = headers, b"text " * 200, status
    answer, body = read(gateway, "/compressed", accepted)
    assert answer.status_code == status
    assert answer.headers.get("content-encoding") == (headers.get("content-encoding") or encoding)
    assert (body == b"text " * 200) == (encoding is None)


@pytest.mark.parametrize(
    ("path", "accepted", "kind", "size", "encoding"),
    [
        ("/own", "gzip, br", "application/x-own", 1000, "br"),
        ("/own", "zstd", "application/x-own; v=1", 1000, "zstd"),
        ("/own", "gzip", "application/x-own", 999, None),
        ("/own", "gzip", "application/a+cbor", 1000, "gzip"),
        ("/own", "gzip", "application/ld+json", 1000, "gzip"),
        ("/own", "zstd", "application/stream+json", 1000, None),
        ("/own", "gzip", "application/json", 1000, None),
        ("/own", "gzip", "text/plain", 1000, None),
        ("/more", "gzip", "image/bmp", 1000, "gzip"),
        ("/more", "zstd", "text/plain", 256, "zstd"),
        ("/more", "zstd", "text/plain", 255, None),
        ("/more", "br", "text/plain", 1000, None),
        ("/more", "gzip, zstd", "text/event-stream", 1000, "gzip"),
    ],
)
def test_a_route_has_types_and_a_size_of_its_own(
    gateway: Gateway, echo: Backend, path: str, accepted: str, kind: str, size: int, encoding: str | None
) -> None:
    echo.headers, echo.body = {"content-type": kind, "etag": '"v1"'}, b"x" * size
    answer, body = read(gateway, path, accepted)
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["etag"] == ('"v1"' if encoding is None else 'W/"v1"')
    assert (body == b"x" * size) == (encoding is None)


def test_a_strong_validator_does_not_name_another_body(gateway: Gateway, echo: Backend) -> None:
    """A compressed body is another representation, so a strong ETag becomes weak (RFC 9110 section 8.8.3)."""
    echo.headers, echo.body = {"content-type": "text/plain", "etag": '"v1"'}, b"text " * 200
    plain = gateway.get("/compressed", headers={"accept-encoding": "identity"})
    packed = gateway.get("/compressed", headers={"accept-encoding": "gzip"})
    echo.headers = {"content-type": "text/plain", "etag": 'W/"v1"'}
    weak = gateway.get("/compressed", headers={"accept-encoding": "gzip"})
    assert [one.headers.get("etag") for one in (plain, packed, weak)] == ['"v1"', 'W/"v1"', 'W/"v1"']
    assert packed.text == plain.text


def test_events_arrive_one_by_one(gateways: Gateways) -> None:
    """An event that the upstream has sent reaches the client before the next one is sent, although it is compressed."""
    events: queue.Queue[bytes] = queue.Queue()

    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        while event := events.get(timeout=30):
            connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
        connection.sendall(b"0\r\n\r\n")

    with SocketServer(serve) as server:
        gateway = gateways.start(YAML, echo=server.address)
        for coding in ("gzip", "br", "zstd, gzip"):
            headers = {"accept-encoding": coding}
            with gateway.client() as client, client.stream("GET", "/compressed", headers=headers) as answer:
                assert answer.headers["content-encoding"] == coding.rpartition(" ")[2]
                parts = answer.iter_bytes()
                for number in range(3):
                    event = b"data: %d\n\n" % number
                    events.put(event)
                    assert next(part for part in parts if part) == event
                events.put(b"")
                assert b"".join(parts) == b""
