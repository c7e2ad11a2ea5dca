"""The messages that policies get, for types and templates that the service of the other tests does not have."""

from __future__ import annotations

from typing import Any

import pytest

from filters.grpc_transcoding.messages import Methods, NotAMessage
from xds_server.sources.protoc import ProtoCompiler

PROTO = """
syntax = "proto3";
package any.v1;
import "google/api/annotations.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Node {
  string id = 1;
  Node left = 2;
  map<string, Node> by_name = 3;
  google.protobuf.Struct free = 4;
  google.protobuf.Timestamp at = 5;
  google.protobuf.Int64Value big = 6;
  google.protobuf.BoolValue yes = 7;
  bytes data = 8;
  bool flag = 9;
  optional int32 maybe = 10;
  repeated Kind kinds = 11;
  oneof one { string plain = 12; Node inner = 13; }
  double share = 14;
  string own = 15 [json_name = "itsOwn"];
}
enum Kind { NONE = 0; SOME = 1; }
service Tree {
  rpc Any(Node) returns (Node) { option (google.api.http) = { get: "/v1/{id=**}" }; }
  rpc One(Node) returns (Node) { option (google.api.http) = { get: "/v1/{id}/left/{left.id}" }; }
  rpc Fixed(Node) returns (Node) { option (google.api.http) = { get: "/v1/{id=x/*/y}" }; }
  rpc Verb(Node) returns (Node) { option (google.api.http) = { post: "/v1/{id}:run" body: "*" }; }
  rpc Left(Node) returns (Node) { option (google.api.http) = { put: "/v1/{id}" body: "left" }; }
  rpc Kinds(Node) returns (Node) { option (google.api.http) = { patch: "/v1/{id}" body: "kinds" }; }
  rpc Many(stream Node) returns (Node) { option (google.api.http) = { post: "/v1/many" body: "*" }; }
}
"""
SET = ProtoCompiler()({"any.proto": PROTO.encode()})
JSON = "application/json"


def ask(verb: str, url: str, body: bytes = b"", kind: str = JSON, **more: Any) -> tuple[str | None, Any]:
    """The method, and the fields of the message that are set."""
    methods = Methods(SET, **more)
    path, _, query = url.partition("?")
    found = methods.message(verb, path, query, kind, body)
    return methods.name_of(verb, path, kind), _set(found)


def _set(found: Any) -> Any:
    if isinstance(found, dict) and "by_name" in found:
        return {
            name: _set(one)
            for name, one in found.items()
            if one not in (None, "", [], {}, 0, False, 0.0, b"")
        }
    return {name: _set(one) for name, one in found.items()} if isinstance(found, dict) else found


@pytest.mark.parametrize(
    ("url", "method", "message"),
    [
        ("/v1/a/b/c", "Any", {"id": "a/b/c"}),
        ("/v1", "Any", {}),
        ("/v1/a%2fb%20c", "Any", {"id": "a%2fb c"}),
        ("/v1/a%2Fb/left/c%2Fd", "One", {"id": "a/b", "left": {"id": "c/d"}}),
        ("/v1/x/left/y", "Fixed", {"id": "x/left/y"}),
        ("/v1/x/a%2Fb/y", "Fixed", {"id": "x/a%2Fb/y"}),
        ("/v1/a?at=2026-01-01T00:00:00Z", "Any", {"id": "a", "at": "2026-01-01T00:00:00Z"}),
        ("/v1/a?at.seconds=1", "Any", {"id": "a", "at": "1970-01-01T00:00:01Z"}),
        ("/v1/a?big=9007199254740993&yes=true", "Any", {"id": "a", "big": "9007199254740993", "yes": True}),
        ("/v1/a?data=_-8&flag=T", "Any", {"id": "a", "data": b"\xff\xef", "flag": True}),
        ("/v1/a?kinds=SOME&kinds=1&kinds=7", "Any", {"id": "a", "kinds": ["SOME", "SOME", 7]}),
        ("/v1/a?inner.plain=x&share=1e-3", "Any", {"id": "a", "inner": {"plain": "x"}, "share": 0.001}),
        ("/v1/a?itsOwn=x", "Any", {"id": "a", "own": "x"}),
        ("/v1/a?own=x+y%2B", "Any", {"id": "a", "own": "x y+"}),
        ("/v1/a?left.left.left.id=x", "Any", {"id": "a", "left": {"left": {"left": {"id": "x"}}}}),
        ("/v1/a?&&", "Any", {"id": "a"}),
    ],
)
def test_paths_and_queries(url: str, method: str, message: Any) -> None:
    assert ask("GET", url) == (f"any.v1.Tree/{method}", message)


@pytest.mark.parametrize(
    ("verb", "url", "body", "message"),
    [
        ("POST", "/v1/a:run", b'{"byName":{"x":{"id":"1"}}}', {"id": "a", "by_name": {"x": {"id": "1"}}}),
        ("POST", "/v1/a:run", b'{"free":{"a":[1,null]},"id":"b"}', {"id": "a", "free": {"a": [1.0, None]}}),
        ("POST", "/v1/a:run", b'{"maybe":5,"itsOwn":"o"}', {"id": "a", "maybe": 5, "own": "o"}),
        ("PUT", "/v1/a", b'{"id":"l","inner":{}}', {"id": "a", "left": {"id": "l", "inner": {}}}),
        ("PUT", "/v1/a?left.plain=p", b'{"id":"l"}', {"id": "a", "left": {"id": "l", "plain": "p"}}),
        ("PATCH", "/v1/a", b'["SOME",1]', {"id": "a", "kinds": ["SOME", "SOME"]}),
    ],
)
def test_bodies(verb: str, url: str, body: bytes, message: Any) -> None:
    assert ask(verb, url, body)[1] == message


@pytest.mark.parametrize(
    ("verb", "url", "body"),
    [
        ("GET", "/v1/a?no=1", b""),
        ("GET", "/v1/a?left=x", b""),
        ("GET", "/v1/a?by_name.x=1", b""),
        ("GET", "/v1/a?id.x=1", b""),
        ("GET", "/v1/a?maybe=1.5", b""),
        ("GET", "/v1/a?maybe=99999999999", b""),
        ("GET", "/v1/a?flag=maybe", b""),
        ("GET", "/v1/a?at=x", b""),
        ("GET", "/v1/a?kinds=OTHER", b""),
        ("GET", "/v1/a?data=%ff", b""),
        ("GET", "/v1/%ff", b""),
        ("GET", "/v1/a", b'{"own":"x"}'),
        ("POST", "/v1/a:run", b"[" * 100_000),
        ("POST", "/v1/a:run", b'{"left":' * 50_000),
        ("POST", "/v1/a:run", b"\xff"),
        ("PATCH", "/v1/a", b'{"a":1}'),
        ("GET", "/v2/a", b""),
        ("TRACE", "/v1/a", b""),
    ],
)
def test_what_is_no_message(verb: str, url: str, body: bytes) -> None:
    with pytest.raises(NotAMessage):
        ask(verb, url, body)


@pytest.mark.parametrize(
    "body", [b"", b"\0\0\0\0", b"\0\0\0\0\1", b"\1\0\0\0\0", b"\0\0\0\0\0\0\0\0\0\0", b"\0\0\0\0\1\xff"]
)
def test_a_frame_that_is_no_message(body: bytes) -> None:
    with pytest.raises(NotAMessage):
        ask("POST", "/any.v1.Tree/Any", body, "application/grpc")
    with pytest.raises(NotAMessage):
        ask("POST", "/any.v1.Tree/Any", b"!" + body, "application/grpc-web-text")


def test_calls_of_grpc() -> None:
    assert ask("POST", "/any.v1.Tree/Any", b"\0\0\0\0\3\x0a\1x", "application/grpc+proto") == (
        "any.v1.Tree/Any",
        {"id": "x"},
    )
    with pytest.raises(NotAMessage):
        ask("POST", "/any.v1.Tree/None", b"\0\0\0\0\0", "application/grpc")
    assert Methods(SET).message("POST", "/v1/many", "", JSON, b"[]") is None


@pytest.mark.parametrize("kind", ["application/grpc+json", "application/grpc-web+json", "application/grpcx"])
def test_messages_in_another_codec_are_not_read(kind: str) -> None:
    with pytest.raises(NotAMessage):
        ask("POST", "/any.v1.Tree/Any", b"\0\0\0\0\3\x0a\1x", kind)


def test_the_text_of_grpc_web_is_read_strictly() -> None:
    """Two decoders could read texts with padding or other characters in the middle as two messages."""
    one, two = b"AAAAAAMKAXg=", b"AAAAAAMKAXk="
    kind = "application/grpc-web-text; charset=utf-8"
    assert ask("POST", "/any.v1.Tree/Any", one, kind)[1] == {"id": "x"}
    for body in (one + two, one[:4] + b"\n" + one[4:], one[:4] + b"-" + one[4:], one[:-1]):
        with pytest.raises(NotAMessage):
            ask("POST", "/any.v1.Tree/Any", body, kind)


def test_options_of_a_route() -> None:
    assert ask("GET", "/v1/a?key=1&key=2", ignore_query=["key"])[1] == {"id": "a"}
    body = b'{"no":{"no":1},"left":{"no":1,"id":"l"}}'
    assert ask("POST", "/v1/a:run", body, ignore_unknown_fields=True)[1] == {"id": "a", "left": {"id": "l"}}
    assert ask("GET", "/v1/a:b", colons_in_ids=True)[1] == {"id": "a:b"}
    with pytest.raises(NotAMessage):
        ask("GET", "/v1/a:b")
