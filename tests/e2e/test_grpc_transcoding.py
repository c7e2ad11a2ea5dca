"""REST clients of gRPC methods through the real Envoy: paths, parameters, bodies, errors, streams and deadlines."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from tests.support.gateway import Gateway, Gateways
from tests.support.grpc_shop import DESCRIPTORS, PROTO, Book, BookRequest, Shop

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1, escaped_slashes: keep}}
upstreams:
  shop: {endpoints: ["127.0.0.1:$shop"], protocol: grpc}
  none: {endpoints: [], protocol: grpc}
  broken: {endpoints: ["127.0.0.1:1"], protocol: grpc}
routes:
  shop: {path: /v1/*, upstream: shop, policies: {grpc_transcoding: {protos: [shop.proto]}}}
  own: {path: /shop.v1.Shop/*, upstream: shop, policies: {grpc_transcoding: {protos: [shop.proto], rpc_paths: true}}}
  set:
    path: /set/*
    upstream: shop
    timeout: 300ms
    policies:
      cors: {allow_origins: ["https://page.example"]}
      grpc_transcoding:
        descriptors: shop.pb
        prefix: /set
        streams: sse
        json: {names: proto, default_values: true, enums: numbers}
        ignore_query: [key]
        colons_in_ids: true
        methods:
          shop.v1.Shop/Plain: [{get: "/plain/{name}"}, {put: "/plain/{name}", body: book}]
  fast: {path: /fast/*, upstream: shop, policies: {grpc_transcoding: {protos: [shop.proto], prefix: /fast, trailing_metadata: false}}}
  lax:
    path: /lax/*
    upstream: shop
    policies: {grpc_transcoding: {protos: [shop.proto, any.proto], prefix: /lax, rpc_paths: true, unknown_fields: ignore}}
  any: {path: /any/*, upstream: shop, policies: {grpc_transcoding: {protos: [any.proto], prefix: /any}}}
  none: {path: /none/*, upstream: none, policies: {grpc_transcoding: {protos: [shop.proto], prefix: /none}}}
  broken: {path: /broken/*, upstream: broken, policies: {grpc_transcoding: {protos: [shop.proto], prefix: /broken}}}
  denied:
    path: /denied/*
    upstream: shop
    policies: {ip_access: {deny: [127.0.0.0/8]}, grpc_transcoding: {protos: [shop.proto], prefix: /denied}}
  small: {path: /small/*, upstream: shop, policies: {grpc_transcoding: {protos: [shop.proto], prefix: /small, max_message: 2KB}}}
"""
ANY = """
syntax = "proto3";
package any.v1;
import "google/api/annotations.proto";
import "google/protobuf/any.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Node {
  string id = 1;
  Node left = 2;
  repeated Node others = 3;
  map<string, Node> by_name = 4;
  map<string, string> labels = 5;
  google.protobuf.Struct free = 6;
  google.protobuf.Value value = 7;
  google.protobuf.Timestamp at = 8;
  google.protobuf.StringValue note = 9;
  google.protobuf.Any detail = 10;
  oneof kind { string plain = 11; Node inner = 12; }
}
message Other { string other = 1; }
service Tree {
  rpc Put(Node) returns (Node) { option (google.api.http) = { post: "/tree" body: "*" }; }
  rpc PutLeft(Node) returns (Node) { option (google.api.http) = { post: "/tree/{id}/left" body: "left" }; }
  rpc PutFree(Node) returns (Node) { option (google.api.http) = { post: "/tree/{id}/free" body: "free" }; }
  rpc Check(Other) returns (Node) { option (google.api.http) = { post: "/tree/{other}:check" body: "*" }; }
}
"""
BOOK = "/v1/shelves/1/books/2"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop().running() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, shop: Shop) -> Gateway:
    files = {"shop.proto": PROTO.read_text(), "shop.pb": DESCRIPTORS, "any.proto": ANY}
    return gateways.start(YAML, files=files, shop=shop.port)


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
def either(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of each version of HTTP."""
    with gateway.client(http1=request.param == "HTTP/1.1", http2=request.param == "HTTP/2") as client:
        yield client


def asked(shop: Shop) -> dict[str, Any]:
    """The last message that the service got."""
    return shop.calls[-1][1]


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.pop("request_id")
    assert body["reason"] == answer.headers["x-gateway-reason"]
    assert body["status"] == answer.status_code
    return body


@pytest.mark.parametrize(
    ("method", "path", "body", "called", "message"),
    [
        ("GET", BOOK, None, "GetBook", {"name": "shelves/1/books/2"}),
        ("GET", f"{BOOK}?view=a+b%2B&book.title=x", None, "GetBook", {"name": "shelves/1/books/2", "view": "a b+", "book": {"title": "x"}}),
        ("GET", f"{BOOK}?book.tags=a&book.tags=b", None, "GetBook", {"name": "shelves/1/books/2", "book": {"tags": ["a", "b"]}}),
        ("GET", "/v1/any/a%2Fb/c%20d+e", None, "GetBook", {"name": "a%2Fb/c d+e"}),
        ("GET", "/v1/books/a%2Fb%3Fc%3Ad", None, "GetBook", {"name": "a/b?c:d"}),
        ("PATCH", BOOK, b'{"title":"x"}', "UpdateBook", {"book": {"name": "shelves/1/books/2", "title": "x"}}),
        ("PATCH", BOOK, b'{"name":"shelves/1/books/2"}', "UpdateBook", {"book": {"name": "shelves/1/books/2"}}),
        ("PATCH", BOOK, b'{"pages":"9007199254740993","labels":{"a_b":"1","aB":"2"}}', "UpdateBook", {"book": {"name": "shelves/1/books/2", "pages": "9007199254740993", "labels": {"a_b": "1", "aB": "2"}}}),
        ("POST", "/v1/shelves/7/books", b'{"name":"n","book":{"authorName":"\\u00e9"}}', "CreateBook", {"name": "n", "shelfId": "7", "book": {"authorName": "é"}}),
        ("POST", "/v1/shelves/7/books", b"", "CreateBook", {"shelfId": "7"}),
        ("POST", f"{BOOK}:check", b" {} ", "CheckBook", {"name": "shelves/1/books/2"}),
        ("DELETE", BOOK, None, "DeleteBook", {"name": "shelves/1/books/2"}),
        ("PUT", "/v1/import/n", b"\x31\x32", "Import", {"name": "n", "file": {"contentType": "text/x", "data": "MTI="}}),
        ("POST", "/shop.v1.Shop/Plain", b'{"name":"p"}', "Plain", {"name": "p"}),
        ("PUT", "/set/plain/n", b'{"title":"x"}', "Plain", {"name": "n", "book": {"title": "x"}}),
        ("GET", "/set/plain/urn:isbn:1?key=k", None, "Plain", {"name": "urn:isbn:1"}),
    ],
)  # fmt: skip
def test_a_request_becomes_the_message_of_its_method(
    client: httpx.Client, shop: Shop, method: str, path: str, body: bytes | None, called: str, message: Any
) -> None:
    kind = "text/x" if called == "Import" else "application/json"
    answer = client.request(method, path, content=body, headers={"content-type": kind} if body else {})
    assert answer.status_code == 200, answer.text
    assert shop.calls[-1][:2] == (called, message)
    assert answer.headers["content-type"] == "application/json"
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-gateway-"))]


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("PATCH", BOOK, b'{"titel":"x"}', 'the message shop.v1.Book has no field "titel" (byte 2 of the body)'),
        ("POST", "/v1/shelves/7/books", b'{"book":{"name":"b"}, "titel":1}', 'the message shop.v1.BookRequest has no field "titel" (byte 23 of the body)'),
        ("POST", "/v1/shelves/7/books", b'{"book":{"a":{"b":1}}}', 'the message shop.v1.Book has no field "a" (byte 10 of the body)'),
        ("POST", "/v1/shelves/7/books", b'{"BOOK":{}}', 'the message shop.v1.BookRequest has no field "BOOK" (byte 2 of the body)'),
        ("POST", "/v1/shelves/7/books", b'{"book":{"author_name":"a","authorName":"b"}}', 'the name "authorName" is repeated (byte 28 of the body)'),
        ("POST", f"{BOOK}:check", b'{"":1}', 'the message shop.v1.BookRequest has no field "" (byte 2 of the body)'),
        ("POST", "/shop.v1.Shop/Plain", b'{"x\\u0041":1}', 'the message shop.v1.BookRequest has no field "xA" (byte 2 of the body)'),
        ("POST", "/any/tree", b'{"others":[{"id":"a"},{"by_name":{"x":{"left":{"no":1}}}}]}', 'the message any.v1.Node has no field "no" (byte 48 of the body)'),
        ("POST", "/any/tree", b'{"byName":{"id":{"x":1}}}', 'the message any.v1.Node has no field "x" (byte 18 of the body)'),
        ("POST", "/any/tree", b'{"free":{"a":[{"b":1}]},"value":{"c":{}},"no":1}', 'the message any.v1.Node has no field "no" (byte 42 of the body)'),
        ("POST", "/any/tree/1/left", b'{"inner":{"no":1}}', 'the message any.v1.Node has no field "no" (byte 11 of the body)'),
        ("POST", "/any/tree/1:check", b'{"id":"1"}', 'the message any.v1.Other has no field "id" (byte 2 of the body)'),
    ],
)  # fmt: skip
def test_a_name_that_the_message_does_not_have_is_rejected(
    either: httpx.Client, shop: Shop, method: str, path: str, body: bytes, detail: str
) -> None:
    before = len(shop.calls)
    answer = either.request(method, path, content=body, headers=JSON)
    assert (answer.status_code, problem(answer)["reason"]) == (400, "invalid_message")
    assert answer.json()["detail"] == detail
    assert len(shop.calls) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", BOOK),
        ("GET", f"/fast{BOOK}"),
        ("GET", "/v1/shelves/1/books"),
        ("GET", "/set/v1/shelves/1/books"),
        ("GET", "/v1/export/n"),
        ("GET", "/set/plain/n"),
        ("DELETE", BOOK),
    ],
)
@pytest.mark.parametrize("body", [b'{"view":"x"}', b'{"no":1}', b"{'view':'x'}", b"x", b'{"a":1,"a":2}'])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_the_method_does_not_read_is_rejected(
    either: httpx.Client, shop: Shop, method: str, path: str, body: bytes, chunked: bool
) -> None:
    """Envoy would take fields from it, and no policy has seen them."""
    before = len(shop.calls)
    answer = either.request(method, path, content=iter([body]) if chunked else body, headers=JSON)
    assert (answer.status_code, problem(answer)["reason"]) == (400, "invalid_message")
    assert answer.json()["detail"] == "the method reads no body; write the fields as query parameters"
    assert len(shop.calls) == before


def test_an_empty_object_is_no_body(either: httpx.Client, shop: Shop) -> None:
    for body in (b"{}", b" {\n} ", b""):
        assert either.request("DELETE", BOOK, content=body, headers=JSON).status_code == 200
        assert asked(shop) == {"name": "shelves/1/books/2"}


def test_a_body_with_a_content_coding_is_rejected(either: httpx.Client, shop: Shop) -> None:
    """The transcoder would read it as plain JSON, and a policy that decodes it would read something else."""
    before = len(shop.calls)
    for coding in ("gzip", "br", "own"):
        headers = {**JSON, "content-encoding": coding}
        answer = either.post("/v1/shelves/7/books", content=b'{"name":"x"}', headers=headers)
        assert (answer.status_code, problem(answer)["reason"]) == (400, "invalid_message")
    assert len(shop.calls) == before
    headers = {**JSON, "content-encoding": "identity"}
    assert either.post("/v1/shelves/7/books", content=b'{"name":"x"}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", f"{BOOK}?view=a&view=b", 'the query parameter "view" is repeated'),
        ("GET", f"{BOOK}?view=a&view=a", 'the query parameter "view" is repeated'),
        ("GET", f"{BOOK}?view&count=1&vi%65w=b", 'the query parameter "view" is repeated'),
        ("GET", f"{BOOK}?shelf_id=1&shelfId=2", 'the query parameter "shelfId" is repeated'),
        ("GET", f"{BOOK}?book.author_name=1&book.tags=a&book.tags=b&book.authorName=2", 'the query parameter "book.authorName" is repeated'),
        ("GET", f"/fast{BOOK}?view=a&view=b", 'the query parameter "view" is repeated'),
        ("GET", "/set/plain/n?key=1&key=2&view=a&view=b", 'the query parameter "view" is repeated'),
        ("GET", "/v1/shelves/1/books?view=a&view=b", 'the query parameter "view" is repeated'),
        ("GET", "/set/v1/shelves/1/books?view=a&view=b", 'the query parameter "view" is repeated'),
        ("GET", "/v1/export/n?view=a&view=b", 'the query parameter "view" is repeated'),
        ("PATCH", f"{BOOK}?view=a&view=b", 'the query parameter "view" is repeated'),
        ("POST", f"{BOOK}:check?view=a&view=b", 'the query parameter "view" is repeated'),
        ("POST", "/lax/tree/1/left?note=a&note=b", 'the query parameter "note" is repeated'),
        ("POST", "/any/tree/1/left?note=a&note.value=b", 'the query parameter "note.value" is repeated'),
        ("POST", "/any/tree/1/left?at.seconds=1&at.nanos=1&at.seconds=2", 'the query parameter "at.seconds" is repeated'),
        ("GET", f"{BOOK}?view=%ff", 'the query parameter "view" is not UTF-8'),
        ("GET", f"{BOOK}?view=%ed%a0%80", 'the query parameter "view" is not UTF-8'),
        ("GET", "/v1/books/%ff", "the path is not UTF-8"),
        ("GET", "/v1/books/%C3", "the path is not UTF-8"),
        ("GET", "/v1/books/%c0%af", "the path is not UTF-8"),
        ("GET", "/v1/any/a/%f4%90%80%80/b", "the path is not UTF-8"),
        ("DELETE", "/fast/v1/shelves/1/books/%e0%80%80", "the path is not UTF-8"),
        ("GET", "/v1/shelves/%ff/books", "the path is not UTF-8"),
        ("GET", "/set/v1/shelves/%ff/books", "the path is not UTF-8"),
    ],
)  # fmt: skip
def test_a_path_or_query_that_is_no_message_is_rejected(
    either: httpx.Client, shop: Shop, method: str, path: str, detail: str
) -> None:
    """What decides on a query reads the first of several values, and Envoy would send the last."""
    before = len(shop.calls)
    body = {"content": b"{}", "headers": JSON} if method in ("PATCH", "POST") else {}
    answer = either.request(method, path, **body)  # type: ignore[arg-type]
    assert (answer.status_code, problem(answer)["reason"]) == (400, "invalid_message"), answer.text
    assert answer.json()["detail"] == detail
    assert len(shop.calls) == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/books/%c3%a9%e2%82%ac%f0%9f%98%80?view=%25ff", {"name": "é€😀", "view": "%ff"}),
        (f"{BOOK}?view=a&count=1&book.title=x&book.authorName=y", {"name": "shelves/1/books/2", "view": "a", "count": 1, "book": {"title": "x", "authorName": "y"}}),
        ("/set/plain/n?key=1&key=%ff&view=a", {"name": "n", "view": "a"}),
    ],
)  # fmt: skip
def test_other_queries_and_characters_pass(client: httpx.Client, shop: Shop, path: str, message: Any) -> None:
    assert client.get(path).status_code == 200
    assert asked(shop) == message


@pytest.mark.parametrize("limit", ["", "x", "1", "1s", "-1S", "1.5S", "123456789S", "1S,2S", "1S ,"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", BOOK), ("GET", f"/fast{BOOK}"), ("PATCH", BOOK), ("GET", "/v1/shelves/1/books")],
)
def test_a_time_limit_that_is_none_is_rejected(
    either: httpx.Client, shop: Shop, limit: str, method: str, path: str
) -> None:
    before = len(shop.calls)
    body = {"content": b"{}"} if method == "PATCH" else {}
    answer = either.request(method, path, headers={"grpc-timeout": limit}, **body)  # type: ignore[arg-type]
    assert (answer.status_code, problem(answer)["reason"]) == (400, "invalid_message")
    assert answer.json()["detail"] == "the header grpc-timeout is no time limit of gRPC, such as 500m"
    assert len(shop.calls) == before


def test_a_repeated_time_limit_is_rejected(either: httpx.Client) -> None:
    answer = either.get(BOOK, headers=[("grpc-timeout", "20S"), ("grpc-timeout", "1S")])
    assert (answer.status_code, problem(answer)["reason"]) == (400, "invalid_message")
    assert either.get(BOOK, headers={"grpc-timeout": "99999999m"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/any/tree", b'{"free":{"any":{"name":[1]}},"value":{"a":1},"labels":{"x":"1","y":"2"},"at":"2026-01-01T00:00:00Z"}'),
        ("/any/tree", b'{"note":"n","left":null,"others":[],"byName":{"x":{"id":"1"},"y":{}},"plain":"p"}'),
        ("/any/tree", b'{"detail":{"@type":"type.googleapis.com/any.v1.Node","id":"x"},"id":"1"}'),
        ("/any/tree/1/free", b'{"a":{"b":{}}}'),
        ("/any/tree/1/left", b'{"inner":{"others":[{"id":"1"},{"left":{"id":"2"}}]}}'),
        ("/any/tree/1:check", b"{}"),
        ("/lax/tree", b'{"no":1,"left":{"no":{"no":[]}}}'),
        ("/lax/shop.v1.Shop/Plain", b'{"no":1,"name":"p"}'),
    ],
)  # fmt: skip
def test_names_that_the_message_has_pass(client: httpx.Client, path: str, body: bytes) -> None:
    """The service knows no such method, so it is the upstream that answers: with UNIMPLEMENTED, or the method's answer."""
    answer = client.post(path, content=body, headers=JSON)
    assert answer.status_code in (200, 501), answer.text


def test_a_response_has_the_bytes_of_protobufs_json(client: httpx.Client) -> None:
    plain = client.get(f"{BOOK}?view=t")
    assert plain.content == b'{"name":"shelves/1/books/2","title":"t","pages":"1152921504606846976"}'
    assert client.delete(BOOK).content == b"{}"
    assert client.get("/v1/export/n").content == b"a,b\n"
    assert client.get("/v1/export/n").headers["content-type"] == "text/csv"
    other = client.get("/set/plain/n")
    assert other.content == (
        b'{"name":"n","title":"","pages":"1152921504606846976","price":0,"labels":{},"tags":[],"kind":0,"author_name":""}'
    )
    assert client.post("/v1/books:add", content=b'[{"name":"a"},{"name":"b"}]').json() == {"name": "a,b"}


def test_without_trailing_metadata_responses_and_rejections_are_the_same(either: httpx.Client) -> None:
    answer, fast = either.get(BOOK), either.get(f"/fast{BOOK}")
    assert (fast.status_code, fast.content) == (200, answer.content)
    ours = {"x-shop", "x-bytes-bin"}
    assert set(fast.headers) == set(answer.headers) - ours
    rejected = either.patch(f"/fast{BOOK}", content=b'{"name":"a","name":"b"}')
    assert problem(rejected)["reason"] == "invalid_message"
    assert either.get(f"/fast{BOOK}?name=x").headers["x-gateway-reason"] == "parameter_conflict"
    assert either.patch(f"/fast{BOOK}", content=b'{"title":"x"}').json()["title"] == "x"


def test_trailing_metadata_is_kept_in_headers(either: httpx.Client) -> None:
    answer = either.get(BOOK)
    assert (answer.headers["x-shop"], answer.headers["x-bytes-bin"]) == ("open", "AQI")
    assert either.get("/v1/books/late").headers["x-shop"] == "closing"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason", "more"),
    [
        ("GET", "/v1/nothing", None, 404, "not_found", {}),
        ("GET", f"{BOOK}:unknown", None, 404, "not_found", {}),
        ("POST", f"{BOOK}:unknown", b"{}", 404, "not_found", {}),
        ("GET", f"{BOOK}/", None, 404, "not_found", {}),
        ("GET", "/v1/shop.v1.Shop/GetBook", None, 404, "not_found", {}),
        ("PUT", BOOK, b"{}", 405, "method_not_allowed", {"allow": "DELETE, GET, PATCH"}),
        ("HEAD", f"{BOOK}:check", None, 405, "method_not_allowed", {"allow": "POST"}),
        ("OPTIONS", BOOK, None, 405, "method_not_allowed", {"allow": "DELETE, GET, PATCH"}),
        ("GET", "/shop.v1.Shop/Plain", None, 405, "method_not_allowed", {"allow": "POST"}),
        ("GET", f"{BOOK}?nothing=1", None, 400, "invalid_message", {}),
        ("GET", f"{BOOK}?count=x", None, 400, "invalid_message", {}),
        ("GET", f"{BOOK}?book=1", None, 400, "invalid_message", {}),
        ("GET", "/set/plain/n?other=1", None, 400, "invalid_message", {}),
        ("GET", f"{BOOK}?name=other", None, 400, "parameter_conflict", {}),
        ("GET", f"{BOOK}?view=x&n%61m%65=other", None, 400, "parameter_conflict", {}),
        ("GET", f"{BOOK}?name", None, 400, "parameter_conflict", {}),
        ("GET", "/v1/shelves/1/first?shelfId=2", None, 400, "parameter_conflict", {}),
        ("GET", "/v1/shelves/1/first?shelf%5fid=2", None, 400, "parameter_conflict", {}),
        ("PATCH", f"{BOOK}?book.name=x", b"{}", 400, "parameter_conflict", {}),
        ("PATCH", BOOK, b'{"name":"other"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"name":"shelves/1/books/2","name":"other"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"name":"shelves/1/books/2","n\\u0061me":"other"}', 400, "invalid_message", {}),
        ("POST", "/v1/shelves/1/books", b'{"shelf_id":"1","shelfId":"2"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b"{'title':'x'}", 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":"x",}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":"x"', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":"x"}{}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":01}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":"\\x"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"pages":"x"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b"[]", 400, "invalid_message", {}),
        ("PATCH", BOOK, b"\xff", 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":"\xff"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":"\xed\xa0\x80"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b'{"title":"\\ud800"}', 400, "invalid_message", {}),
        ("PATCH", BOOK, b"[" * 10_000, 400, "invalid_message", {}),
        ("PATCH", "/small" + BOOK, b'{"title":"' + b"x" * 2000 + b'"}', 413, "body_too_large", {}),
        ("GET", "/small/v1/books/large?count=3000", None, 502, "invalid_response", {}),
        ("GET", "/none" + BOOK, None, 503, "no_healthy_upstream", {}),
        ("GET", "/none/v1/shelves/1/books", None, 503, "no_healthy_upstream", {}),
        ("GET", "/broken" + BOOK, None, 503, "upstream_unreachable", {}),
        ("GET", "/denied" + BOOK, None, 403, "ip_denied", {}),
        ("GET", "/denied/v1/shelves/1/books", None, 403, "ip_denied", {}),
    ],
)  # fmt: skip
def test_the_gateway_rejects_and_says_why(
    either: httpx.Client,
    shop: Shop,
    method: str,
    path: str,
    body: bytes | None,
    status: int,
    reason: str,
    more: Any,
) -> None:
    before = len(shop.calls)
    answer = either.request(method, path, content=body, headers=JSON if body else {})
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (status, reason), answer.text
    assert "grpc-status" not in answer.headers
    assert {name: answer.headers[name] for name in more} == more
    if method != "HEAD":
        assert problem(answer)["reason"] == reason
    assert len(shop.calls) == before or reason == "invalid_response"


def test_a_rejection_tells_which_part_of_the_request_is_wrong(client: httpx.Client) -> None:
    answer = client.get(f"{BOOK}?nothing=1")
    assert problem(answer)["detail"] == 'Could not find field "nothing" in the type "shop.v1.BookRequest".'
    answer = client.patch(BOOK, content=b'{"title":1,"title":2}')
    assert problem(answer)["detail"] == 'the name "title" is repeated (byte 12 of the body)'


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("missing", 404, {"title": "The resource was not found", "reason": "grpc_not_found", "detail": 'no "such" book: é', "code": 5}),
        ("late", 404, {"title": "The resource was not found", "reason": "grpc_not_found", "detail": "late", "code": 5}),
        ("both", 404, {"title": "The resource was not found", "reason": "grpc_not_found", "detail": "with a message", "code": 5}),
        ("special", 500, {"title": "The upstream failed", "reason": "grpc_unknown", "code": 2,
            "detail": "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"}),
        ("taken", 409, {"title": "The resource already exists", "reason": "grpc_already_exists", "detail": "taken", "code": 6}),
        ("broken", 500, {"title": "The upstream failed", "reason": "grpc_internal", "code": 13}),
        ("slow", 504, {"title": "The upstream did not respond in time", "reason": "grpc_deadline_exceeded", "detail": "slow", "code": 4}),
        ("sold", 400, {"title": "The resource is in the wrong state", "reason": "grpc_failed_precondition", "detail": "sold out", "code": 9,
            "details": [{"@type": "type.googleapis.com/shop.v1.OutOfStock", "isbn": "1"}]}),
        ("limited", 429, {"title": "Too many requests", "reason": "grpc_resource_exhausted", "detail": "later", "code": 8,
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/v1/books/{}", "/v1/shelves/{}/books", "/v1/export/{}", "/fast/v1/books/{}"]
)
def test_an_error_of_the_service_is_a_problem_with_its_details(
    either: httpx.Client, path: str, name: str, status: int, expected: dict[str, Any]
) -> None:
    if name in ("late", "both") and path == "/v1/shelves/{}/books":
        pytest.skip("its headers are sent with the status 200 before the error")
    answer = either.get(path.format(name))
    assert answer.status_code == status
    assert problem(answer) == {"type": "about:blank", "status": status, **expected}


def test_a_detail_of_an_unknown_type_is_kept_as_bytes(either: httpx.Client) -> None:
    answer = either.get("/v1/books/foreign")
    body = problem(answer)
    assert (body["detail"], body["code"], answer.status_code) == ("50% foreign", 10, 409)
    assert b"other.v1.Unknown" in base64.b64decode(body["grpc_status_details"] + "==")


def test_the_interoperability_cases_of_grpc_pass_as_rest(either: httpx.Client, shop: Shop) -> None:
    """grpc/doc/interop-test-descriptions.md: those that a REST client can make."""
    assert either.delete(BOOK).content == b"{}"  # empty_unary
    large = either.patch(BOOK, content=json.dumps({"title": "x" * 271_828}).encode())  # large_unary
    assert len(large.json()["title"]) == 271_828
    either.get(BOOK, headers={"x-grpc-test-echo-initial": "test_initial_metadata_value"})  # custom_metadata
    assert shop.calls[-1][2]["x-grpc-test-echo-initial"] == "test_initial_metadata_value"
    sizes = [31415, 9, 2653, 58979]
    names = [either.get(f"/v1/books/large?count={size}").json()["title"] for size in sizes]
    assert [len(name) for name in names] == sizes
    summed = either.post("/v1/books:add", content=json.dumps([{"name": str(one)} for one in sizes]).encode())
    assert summed.json()["name"] == "31415,9,2653,58979"  # client_streaming
    stream = either.get("/v1/shelves/n/books?count=4")  # server_streaming
    assert len(stream.text.splitlines()) == 4
    last = either.get("/v1/shelves/special/books?count=1").text.splitlines()[-1]  # special_status_message
    assert (
        json.loads(last)["error"]["detail"]
        == "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    )
    assert either.get("/v1/nothing").status_code == 404  # unimplemented_method


def test_a_stream_is_sent_line_by_line(either: httpx.Client) -> None:
    answer = either.get("/v1/shelves/n/books?count=3")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["name"] for line in answer.text.splitlines()] == ["0", "1", "2"]
    assert answer.text.endswith("\n")
    assert either.get("/v1/shelves/n/books").content == b""


def test_an_error_amid_a_stream_is_its_last_line(either: httpx.Client) -> None:
    for count in (0, 2, 500):
        answer = either.get(f"/v1/shelves/sold/books?count={count}")
        *books, last = [json.loads(line) for line in answer.text.splitlines()]
        if count == 0:
            assert answer.status_code == 400
            continue
        assert [book["name"] for book in books] == [str(number) for number in range(count)]
        error = last["error"]
        assert error.pop("request_id")
        assert b"OutOfStock" in base64.b64decode(error.pop("grpc_status_details") + "==")
        assert error == {
            "type": "about:blank", "title": "The resource is in the wrong state", "status": 400,
            "reason": "grpc_failed_precondition", "detail": "sold out", "code": 9,
        }  # fmt: skip


def test_server_sent_events_end_with_an_event_of_the_error(either: httpx.Client) -> None:
    fine = either.get("/set/v1/shelves/n/books?count=1")
    assert fine.headers["content-type"] == "text/event-stream"
    assert fine.text.startswith('data: {"name":"0"')
    assert fine.text.endswith("}\n\n")
    failed = either.get("/set/v1/shelves/missing/books?count=1")
    event = failed.text.removeprefix(fine.text)
    assert event.startswith("event: error\ndata: {")
    assert json.loads(event.splitlines()[1].removeprefix("data: "))["detail"] == 'no "such" book: é'


def test_the_messages_of_a_stream_come_one_by_one(client: httpx.Client, shop: Shop) -> None:
    shop.release.clear()
    with client.stream("GET", "/v1/shelves/n/books?count=2&view=slow") as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines))["name"] == "0"
        shop.release.set()
        assert json.loads(next(lines))["name"] == "1"
    shop.release.clear()


def test_the_service_gets_the_time_limit_of_the_route(client: httpx.Client, shop: Shop) -> None:
    client.get("/set/plain/n")
    assert 0 < shop.calls[-1][3] <= 0.3
    answer = client.get("/set/plain/never")
    assert (
        answer.status_code,
        problem(answer)["reason"] in ("upstream_timeout", "grpc_deadline_exceeded"),
    ) == (504, True)
    client.get("/set/plain/n", headers={"grpc-timeout": "20m"})
    assert shop.calls[-1][3] <= 0.02
    shop.release.set()
    shop.release.clear()


def test_clients_of_grpc_use_the_same_route(gateway: Gateway, shop: Shop) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        call = channel.unary_unary(
            "/shop.v1.Shop/Plain",
            request_serializer=BookRequest.SerializeToString,
            response_deserializer=Book.FromString,
        )
        assert call(BookRequest(name="n"), timeout=20).name == "n"
        with pytest.raises(grpc.RpcError) as missing:
            call(BookRequest(name="missing"), timeout=20)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as unknown:
            channel.unary_unary("/shop.v1.Shop/Nothing")(b"", timeout=20)
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert ("x-gateway-reason", "not_found") in unknown.value.trailing_metadata()


def test_no_request_passes_untranscoded(gateway: Gateway, shop: Shop) -> None:
    before = len(shop.calls)
    for kind in ("application/grpc", "application/grpc+json", "application/grpc-web"):
        answer = gateway.request("POST", BOOK, content=b"\0\0\0\0\0", headers={"content-type": kind})
        assert answer.headers["x-gateway-reason"] == "not_found"
    assert len(shop.calls) == before


def test_pages_of_other_origins_may_ask(client: httpx.Client) -> None:
    origin = {"origin": "https://page.example"}
    asks = {**origin, "access-control-request-method": "PUT"}
    preflight = client.options("/set/plain/n", headers=asks)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (
        200,
        origin["origin"],
    )
    for path, status in (("/set/plain/n", 200), ("/set/nothing", 404), ("/set/plain/n?name=1", 400)):
        answer = client.get(path, headers=origin)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
            status,
            origin["origin"],
        )


def test_large_messages_pass(client: httpx.Client, shop: Shop) -> None:
    body = json.dumps({"title": "x" * 1_000_000}).encode()
    answer = client.patch(BOOK, content=body)
    assert len(answer.json()["title"]) == 1_000_000
    assert len(client.get("/v1/books/large?count=2000000").json()["title"]) == 2_000_000


def test_many_clients_at_once_get_their_own_answers(gateway: Gateway) -> None:
    wrong: list[str] = []

    def ask(number: int) -> None:
        with gateway.client() as client:
            for turn in range(20):
                name = f"{number}-{turn}"
                if client.get(f"/v1/books/{name}").json()["name"] != name:
                    wrong.append(name)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
