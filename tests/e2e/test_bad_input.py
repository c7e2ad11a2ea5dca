"""Bad input through a real Envoy: the same messages to each policy that reads bodies, with a clear status for each.

What is accepted reaches the upstream whole, and memory stays bounded.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator, Mapping
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import grpc
import pytest

from tests.support.backend import Backend
from tests.support.grpc_shop import PROTO, Book, Shop
from tests.support.policy_server import Stack, Stacks
from xds_server.errors import InvalidGateway

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  echo: {endpoints: ["$echo"]}
  shop: {endpoints: ["127.0.0.1:$shop"], protocol: grpc}
  newer: {endpoints: ["127.0.0.1:$newer"], protocol: grpc}
routes:
  change: {path: /change, upstream: echo, policies: {transform: {request: {remove: [secret]}, response: {remove: [secret]}}}}
  schema: {path: /schema, upstream: echo, policies: {validate: {json_schema: schema.yaml, response_schema: schema.yaml}}}
  process: {path: /process, upstream: echo, policies: {ext_proc: {python: "p.py:Whole", timeout: 20s}}}
  decode: {path: /decode, upstream: echo, policies: {decompression: true}}
  cache: {path: /cache, upstream: echo, policies: {cache: 5m}}
  books: {path: /v1/*, upstream: shop, policies: {grpc_transcoding: {protos: [shop.proto]}}}
  newer: {path: /newer/*, upstream: newer, policies: {grpc_transcoding: {protos: [shop.proto], prefix: /newer}}}
  call: {path: /shop.v1.Shop/*, upstream: shop}
"""
SCHEMA = """
type: object
required: [name]
properties: {name: {type: string}, child: {$ref: "#"}}
"""
PROCESSOR = """
from filters.ext_proc import Processor

class Whole(Processor):
    async def request_body(self, request, body):
        return body

    async def response_body(self, request, response, body):
        return body
"""
PATHS = ("/change", "/schema", "/process", "/v1/shelves/7/books")
JSON = {"content-type": "application/json"}
NAMED = b'{"name":"n"}'


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop().running() as running:
        yield running


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend, shop: Shop) -> Iterator[Stack]:
    files = {"schema.yaml": SCHEMA, "p.py": PROCESSOR, "shop.proto": PROTO.read_text()}
    with ExitStack() as servers:
        pool = servers.enter_context(ThreadPoolExecutor(4))
        newer = grpc.server(pool, handlers=(Newer(),))
        port = newer.add_insecure_port("127.0.0.1:0")
        newer.start()
        servers.callback(lambda: newer.stop(None).wait())
        yield stacks.start(YAML, files=files, echo=backend.address, shop=shop.port, newer=port)


class Newer(grpc.GenericRpcHandler):
    """A service whose messages have a field that the gateway's .proto file does not have."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        unknown = b"\xfa\x3e\x03new"  # the field 1007
        return grpc.unary_unary_rpc_method_handler(lambda *_: Book(title="t").SerializeToString() + unknown)


@pytest.fixture
def echo(backend: Backend) -> Iterator[Backend]:
    backend.seen.clear()
    backend.body = NAMED
    yield backend
    backend.status, backend.body, backend.headers = 200, None, {}


class Row(NamedTuple):
    """One body, and what each of PATHS rejects it with: status and reason. None means that it passes as it is."""

    name: str
    body: bytes
    change: tuple[int, str] | None
    schema: tuple[int, str] | None
    process: tuple[int, str] | None
    books: tuple[int, str] | None
    headers: Mapping[str, str] = {}


MALFORMED, MESSAGE, LARGE = (400, "malformed_body"), (400, "invalid_message"), (413, "body_too_large")
INVALID, CHARSET, CODING = (
    (400, "invalid_request"),
    (415, "unsupported_charset"),
    (400, "malformed_content_coding"),
)
UTF16 = {"content-type": "application/json; charset=utf-16"}
GZIP = {"content-encoding": "gzip"}
TABLE = (
    Row("valid", NAMED, None, None, None, None),
    Row("cut", b'{"name":"n"', MALFORMED, MALFORMED, None, MESSAGE),
    Row("repeated name", b'{"name":"n","name":"m"}', MALFORMED, MALFORMED, None, MESSAGE),
    Row("repeated escaped name", b'{"name":"n","n\\u0061me":"m"}', MALFORMED, MALFORMED, None, MESSAGE),
    Row("two values", b"{} {}", MALFORMED, MALFORMED, None, MESSAGE),
    Row("huge number", b'{"name":"n","count":%s}' % (b"9" * 400_000), None, MALFORMED, None, MESSAGE),
    Row("huge exponent", b'{"name":"n","count":1e999999999}', None, None, None, MESSAGE),
    Row("10,000 arrays", b"[" * 10_000 + b"]" * 10_000, MALFORMED, MALFORMED, None, MESSAGE),
    Row("10,000 objects", b'{"child":' * 10_000 + b"1" + b"}" * 10_000, MALFORMED, MALFORMED, None, MESSAGE),
    Row("no UTF-8", b'{"name":"\xff"}', MALFORMED, MALFORMED, None, MESSAGE),
    Row("UTF-16", '{"name":"n"}'.encode("utf-16"), MALFORMED, MALFORMED, None, MESSAGE),
    Row("another charset", NAMED, CHARSET, CHARSET, None, None, UTF16),
    Row("empty", b"", None, INVALID, None, None),
    Row("no gzip", NAMED, CODING, CODING, CODING, MESSAGE, GZIP),
    Row("bomb", gzip.compress(b" " * 200_000_000, mtime=0), LARGE, LARGE, LARGE, MESSAGE, GZIP),
)
RECURSIVE = b'{"name":"n","child":' * 60 + NAMED + b"}" * 60
"""A value that a schema which refers to itself describes, with as many levels."""


@pytest.mark.parametrize("at", range(4), ids=PATHS)
@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
@pytest.mark.parametrize("chunked", [False, True])
def test_each_body_is_accepted_whole_or_rejected_with_its_reason(
    stack: Stack, echo: Backend, shop: Shop, row: Row, at: int, chunked: bool
) -> None:
    shop.calls.clear()
    expected = (row.change, row.schema, row.process, row.books)[at]
    content = iter([row.body[:7], row.body[7:]]) if chunked and row.body else row.body
    before = stack.memory()
    answer = stack.request("POST", PATHS[at], content=content, headers={**JSON, **row.headers})
    assert stack.memory() - before < 60_000_000
    if expected is None:
        assert answer.status_code == 200, answer.text
        if at < 3:
            assert echo.seen[-1]["body"] == row.body.decode("utf-8", "replace")
        else:
            assert shop.calls[-1][1] == {"shelfId": "7", **(json.loads(row.body) if row.body else {})}
        return
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == expected
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == expected[1]
    assert not echo.seen
    assert not shop.calls


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sized", [False, True])
def test_a_body_of_100_mb_is_rejected_and_not_kept(
    stack: Stack, echo: Backend, path: str, sized: bool
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000_000

    before = stack.memory()
    headers = {**JSON, "content-length": "100000000"} if sized else JSON
    answer = stack.request("POST", path, content=pieces(), headers=headers)
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == LARGE
    assert stack.memory() - before < 60_000_000
    assert not echo.seen


def test_a_schema_that_refers_to_itself_compares_nested_values(stack: Stack, echo: Backend) -> None:
    assert stack.request("POST", "/schema", content=RECURSIVE, headers=JSON).status_code == 200
    assert echo.seen[-1]["body"].encode() == RECURSIVE
    wrong = RECURSIVE.replace(NAMED, b'{"name":1}')
    answer = stack.request("POST", "/schema", content=wrong, headers=JSON)
    assert [one["pointer"] for one in answer.json()["errors"]] == ["#" + "/child" * 60 + "/name"]


def raw(stack: Stack, *pieces: bytes) -> bytes:
    """The response to a request that is written in pieces, each of which has left before the next one is written."""
    with socket.create_connection(("127.0.0.1", stack.listener), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while more := connection.recv(65536):
            received += more
        return received


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    start = (
        f"{method} {path} HTTP/1.1",
        "host: shop.test",
        "content-type: application/json",
        "connection: close",
    )
    return "\r\n".join((*start, *lines, "", "")).encode()


@pytest.mark.parametrize("path", [*PATHS, "/decode"])
def test_a_slow_body_arrives_whole(stack: Stack, echo: Backend, shop: Shop, path: str) -> None:
    shop.calls.clear()
    pieces = [NAMED[at : at + 1] for at in range(len(NAMED))]
    answer = raw(stack, head(path, f"content-length: {len(NAMED)}"), *pieces)
    assert answer.startswith(b"HTTP/1.1 200")
    if path in PATHS[:3] or path == "/decode":
        assert echo.seen[-1]["body"].encode() == NAMED
    else:
        assert shop.calls[-1][1] == {"shelfId": "7", "name": "n"}


@pytest.mark.parametrize("path", [*PATHS, "/decode"])
def test_trailers_do_not_change_a_body_in_chunks(stack: Stack, echo: Backend, shop: Shop, path: str) -> None:
    shop.calls.clear()
    chunks = b"5\r\n%s\r\n7\r\n%s\r\n0\r\nx-trailer: 1\r\n\r\n" % (NAMED[:5], NAMED[5:])
    answer = raw(stack, head(path, "transfer-encoding: chunked", "trailer: x-trailer"), chunks)
    assert answer.startswith(b"HTTP/1.1 200")
    if path in PATHS[:3] or path == "/decode":
        assert echo.seen[-1]["body"].encode() == NAMED
        assert "x-trailer" not in echo.seen[-1]["headers"]
    else:
        assert shop.calls[-1][1] == {"shelfId": "7", "name": "n"}


@pytest.mark.parametrize("path", [*PATHS, "/decode", "/cache"])
def test_an_upgrade_is_rejected(stack: Stack, echo: Backend, path: str) -> None:
    lines = ("upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13")
    request = head(path, *lines, method="GET").replace(b"connection: close", b"connection: upgrade, close")
    answer = raw(stack, request)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"x-gateway-reason: upgrade_not_allowed" in answer
    assert not echo.seen


OF_RESPONSES = ("/change", "/schema", "/process", "/decode", "/cache")


@pytest.mark.parametrize("path", OF_RESPONSES)
@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_a_body_stay_so(stack: Stack, echo: Backend, path: str, status: int) -> None:
    echo.status, echo.headers, echo.body = status, {"etag": 'W/"1"'}, b""
    answer = stack.get(path)
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, b"", 'W/"1"')


@pytest.mark.parametrize("path", OF_RESPONSES)
def test_a_response_to_head_has_no_body_and_no_wrong_length(stack: Stack, echo: Backend, path: str) -> None:
    echo.body = b'{"name":"n","secret":1}'
    answer = stack.request("HEAD", path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers.get("content-length") in (None, str(len(stack.get(path).content)))


@pytest.mark.parametrize("path", OF_RESPONSES)
def test_a_part_of_a_body_is_passed_on_as_a_part_or_not_at_all(
    stack: Stack, echo: Backend, path: str
) -> None:
    echo.status, echo.headers, echo.body = 206, {"content-range": "bytes 0-6/12"}, NAMED[:7]
    answer = stack.get(path, headers={"range": "bytes=0-6"})
    if path == "/change":
        assert "range" not in echo.seen[-1]["headers"]
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (500, "response_not_transformable")
    elif path == "/schema":
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (500, "invalid_response")
    else:
        assert (answer.status_code, answer.content) == (206, NAMED[:7])
        assert answer.headers["content-range"] == "bytes 0-6/12"


def test_fields_that_the_descriptors_do_not_have_are_left_out(stack: Stack) -> None:
    answer = stack.get("/newer/v1/books/1")
    assert (answer.status_code, answer.content) == (200, b'{"title":"t"}')


def test_calls_of_grpc_keep_unknown_fields(stack: Stack, shop: Shop) -> None:
    unknown = b"\xfa\x3e\x03new"
    with grpc.insecure_channel(f"127.0.0.1:{stack.listener}") as channel:
        call = channel.unary_unary("/shop.v1.Shop/Plain")
        assert Book.FromString(call(b"\x0a\x01n" + unknown, timeout=30)).name == "n"
    assert shop.calls[-1][:2] == ("Plain", {"name": "n"})


@pytest.mark.parametrize("url", ["https://example.com/s.json", "file:///etc/passwd", "other.json"])
def test_a_schema_with_the_url_of_another_is_an_error(stacks: Stacks, echo: Backend, url: str) -> None:
    text = f"""
    listeners: {{http: {{port: $port}}}}
    upstreams: {{echo: {{endpoints: ["$echo"]}}}}
    routes: {{a: {{path: /a, upstream: echo, policies: {{validate: {{json_schema: {{schema: {{$$ref: "{url}"}}}}}}}}}}}}
    """
    with pytest.raises(
        InvalidGateway, match=r"routes\.a\.policies\.validate\.json_schema: .*(fetch|retriev)"
    ):
        stacks.start(text, echo=echo.address)


def test_many_bad_bodies_at_once_leave_the_good_ones_alone(stack: Stack, echo: Backend) -> None:
    bad = [row for row in TABLE if row.change is not None and len(row.body) < 100_000]

    def ask(number: int) -> int:
        row = bad[number % len(bad)]
        if number % 3:
            return stack.request(
                "POST", "/change", content=row.body, headers={**JSON, **row.headers}
            ).status_code
        return stack.request("POST", "/change", content=NAMED, headers=JSON).status_code

    with futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(120)))
    assert {status for number, status in enumerate(statuses) if number % 3 == 0} == {200}
    assert {status for number, status in enumerate(statuses) if number % 3} <= {400, 413, 415}
