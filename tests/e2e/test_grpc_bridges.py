"""gRPC over HTTP/1.1, from clients and towards services, and gRPC clients of a REST service, through the real Envoy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.grpc_shop import PROTO, Book, BookRequest, Shop

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  shop: {endpoints: ["127.0.0.1:$shop"], protocol: grpc}
  rest: {endpoints: ["$rest"]}
routes:
  old: {path: /shop.v1.Shop/Plain, hosts: [old.test], upstream: shop, policies: {grpc_bridge: true}}
  framed: {path: /shop.v1.Shop/*, hosts: [framed.test], upstream: shop, policies: {grpc_bridge: {protobuf: true}}}
  messages: {path: /shop.v1.Shop/*, hosts: [messages.test], upstream: rest, policies: {grpc_reverse_bridge: true}}
  rest:
    path: /*
    hosts: [rest.test]
    upstream: rest
    policies: {grpc_reverse_transcoding: {protos: [shop.proto], prefix: /api, methods: {shop.v1.Shop/Plain: {put: "/plain/{name}", body: book}}}}
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop().running() as running:
        yield running


@pytest.fixture(scope="module")
def rest() -> Iterator[Backend]:
    with Backend("rest") as running:
        yield running


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, shop: Shop, rest: Backend) -> Gateway:
    return gateways.start(YAML, files={"shop.proto": PROTO.read_text()}, shop=shop.port, rest=rest.address)


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def post(gateway: Gateway, host: str, method: str, kind: str, body: bytes) -> httpx.Response:
    return gateway.request(
        "POST", f"/shop.v1.Shop/{method}", content=body, headers={"host": host, "content-type": kind}
    )


def call(gateway: Gateway, host: str, method: str, request: Any) -> Any:
    options = [("grpc.default_authority", host), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}", options) as channel:
        stub = channel.unary_unary(
            f"/shop.v1.Shop/{method}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=Book.FromString,
        )
        return stub.with_call(request, timeout=30)


def test_a_client_of_http_1_1_calls_grpc_and_reads_the_status_in_headers(gateway: Gateway) -> None:
    request = BookRequest(name="n").SerializeToString()
    answer = post(gateway, "old.test", "Plain", "application/grpc", framed(request))
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "0")
    assert Book.FromString(answer.content[5:]).name == "n"
    missing = BookRequest(name="taken").SerializeToString()
    answer = post(gateway, "old.test", "Plain", "application/grpc", framed(missing))
    assert (answer.headers["grpc-status"], answer.headers["grpc-message"]) == ("6", "taken")


def test_a_client_sends_messages_without_frames(gateway: Gateway) -> None:
    request = BookRequest(name="n").SerializeToString()
    answer = post(gateway, "framed.test", "Plain", "application/x-protobuf", request)
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "0")
    assert Book.FromString(answer.content).name == "n"
    missing = BookRequest(name="taken").SerializeToString()
    answer = post(gateway, "framed.test", "Plain", "application/x-protobuf", missing)
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "6")


def test_a_service_gets_messages_as_bodies(gateway: Gateway, rest: Backend) -> None:
    rest.headers = {"content-type": "application/x-protobuf"}
    rest.body = Book(name="of a service").SerializeToString()
    try:
        book, _ = call(gateway, "messages.test", "Plain", BookRequest(name="n"))
    finally:
        rest.headers, rest.body = {}, None
    assert book.name == "of a service"
    asked = rest.seen[-1]
    assert (asked["method"], asked["path"]) == ("POST", "/shop.v1.Shop/Plain")
    assert asked["headers"]["content-type"] == "application/x-protobuf"
    assert asked["body"].encode() == BookRequest(name="n").SerializeToString()


def test_a_client_of_grpc_calls_a_rest_service(gateway: Gateway, rest: Backend) -> None:
    rest.body = json.dumps({"name": "n", "title": "of REST", "unknown": 1}).encode()
    rest.headers = {"content-type": "application/json", "x-own": "1"}
    try:
        book, answer = call(
            gateway, "rest.test", "GetBook", BookRequest(name="shelves/1/books/2", view="a b")
        )
        assert (book.title, dict(answer.initial_metadata())["x-own"]) == ("of REST", "1")
        asked = rest.seen[-1]
        assert (asked["method"], asked["path"]) == ("GET", "/api/v1/shelves/1/books/2?view=a%20b")
        assert not {"te", "grpc-accept-encoding"} & set(asked["headers"])
        call(gateway, "rest.test", "Plain", BookRequest(name="n", book=Book(title="x")))
        asked = rest.seen[-1]
        assert (asked["method"], asked["path"], asked["body"]) == ("PUT", "/api/plain/n", '{"title":"x"}')
    finally:
        rest.headers, rest.body = {}, None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, grpc.StatusCode.INTERNAL),
        (401, grpc.StatusCode.UNAUTHENTICATED),
        (403, grpc.StatusCode.PERMISSION_DENIED),
        (404, grpc.StatusCode.UNIMPLEMENTED),
        (503, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_an_error_of_a_rest_service_has_the_status_of_grpcs_table(
    gateway: Gateway, rest: Backend, status: int, code: grpc.StatusCode
) -> None:
    rest.status, rest.body = status, b'{"title":"no"}'
    try:
        with pytest.raises(grpc.RpcError) as failed:
            call(gateway, "rest.test", "GetBook", BookRequest(name="shelves/1/books/2"))
    finally:
        rest.status, rest.body = 200, None
    assert (failed.value.code(), failed.value.details()) == (code, '{"title":"no"}')


@pytest.mark.parametrize("method", ["Nothing", "ListBooks", "AddBooks"])
def test_a_method_that_cannot_be_transcoded_is_unimplemented(
    gateway: Gateway, rest: Backend, method: str
) -> None:
    before = len(rest.seen)
    with pytest.raises(grpc.RpcError) as failed:
        call(gateway, "rest.test", method, BookRequest())
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    plain = post(gateway, "rest.test", "GetBook", "application/json", b"{}")
    assert (plain.status_code, plain.headers["x-gateway-reason"]) == (404, "not_found")
    assert len(rest.seen) == before
