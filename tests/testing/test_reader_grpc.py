"""Files of tests with gRPC: what they become, and every mistake with its place, value and remedy."""

from __future__ import annotations

import textwrap

import pytest

from tests.support.reading import read as read_gateway
from xds_server.sources.protoc import ProtoCompiler
from xds_server.testing.reader import Reading, read

GATEWAY = """
listeners: {http: {port: 8080}, shop: {port: 8081, hosts: [shop.example.com]}}
upstreams:
  orders: {endpoints: [127.0.0.1:9001], protocol: grpc}
  old: {endpoints: [127.0.0.1:9002]}
routes:
  orders: {path: /shop.v1.Orders/*, upstream: orders}
  old: {path: /shop.v1.Old/*, upstream: old}
  reverse: {path: /shop.v1.Reverse/*, upstream: old, policies: {grpc_reverse_bridge: true}}
"""
PROTO = b"""
syntax = "proto3";
package shop.v1;
message Order { int64 id = 1; string text = 2; }
service Orders { rpc Get(Order) returns (Order); rpc List(Order) returns (stream Order); }
service Old { rpc Get(Order) returns (Order); }
service Reverse { rpc Get(Order) returns (Order); }
"""
COMPILER = ProtoCompiler()


def _load(path: str) -> bytes:
    if path != "shop.proto":
        raise FileNotFoundError(2, "No such file or directory", path)
    return PROTO


def _read(text: str) -> Reading:
    gateway = read_gateway(GATEWAY).gateway
    assert gateway is not None
    content = "protos: [shop.proto]\n" + textwrap.dedent(text)
    return read({"tests/a.yaml": content.encode()}, {}, gateway, _load, COMPILER)


def test_a_call_has_its_url_its_headers_and_its_messages() -> None:
    reading = _read("""
        upstreams:
          orders:
            - 503
            - grpc: {method: shop.v1.Orders/List, message: [{id: 1}, {id: 2}]}
            - grpc: OK
            - grpc: {method: shop.v1.Orders/Get, status: NOT_FOUND}
        tests:
          a: {request: {grpc: {method: shop.v1.Orders/Get, message: {id: 7}}, headers: {X-Team: shop}}, expect: {grpc: OK}}
          b: {request: {grpc: shop.v1.Orders/Get, url: "http://shop.example.com:8081/"}, expect: {grpc: OK}}
          c: {request: {grpc: shop.v1.Orders/Get, listener: shop}, expect: {grpc: OK}}
        """)
    assert reading.problems == ()
    first, *others = (test.exchanges[0] for test in reading.tests)
    assert (first.step.request.verb, first.url) == ("POST", "http://localhost:8080/shop.v1.Orders/Get")
    assert first.step.request.all_headers == {
        "content-type": "application/grpc",
        "te": "trailers",
        "x-team": "shop",
    }
    assert first.messages == (b"\x08\x07",)
    assert first.explanation.route == "orders"
    assert {one.url for one in others} == {"http://shop.example.com:8081/shop.v1.Orders/Get"}
    answers = reading.tests[0].answers["orders"]
    assert [one.messages for one in answers] == [(), (b"\x08\x01", b"\x08\x02"), (b"",), ()]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "tests: {a: {request: {grpc: shop.v1.Orders/Gte}, expect: {grpc: OK}}}",
            (
                "tests/a.yaml:2:23: error: tests.a.request.grpc.method: no descriptor has this method "
                "(found 'shop.v1.Orders/Gte'); did you mean 'shop.v1.Orders/Get'?"
            ),
        ),
        (
            "tests: {a: {request: {grpc: Get}, expect: {grpc: OK}}}",
            (
                "tests/a.yaml:2:29: error: tests.a.request.grpc: expected a method such as shop.v1.Orders/Get (found 'Get')"
            ),
        ),
        (
            "tests: {a: {request: {grpc: {method: shop.v1.Orders/Get, message: {idd: 1}}}, expect: {grpc: OK}}}",
            (
                "tests/a.yaml:2:73: error: tests.a.request.grpc.message.idd: the message shop.v1.Order has no field 'idd' "
                "(found 'idd'); did you mean 'id'?"
            ),
        ),
        (
            "tests: {a: {request: {grpc: shop.v1.Orders/Get}, expect: {grpc: {message: {text: 1}}}}}",
            (
                "tests/a.yaml:2:82: error: tests.a.expect.grpc.message.text: the field 'text' is of type string (found 1); "
                "write such a value"
            ),
        ),
        (
            (
                "tests: {a: {request: {grpc: shop.v1.Orders/Get}, "
                "expect: {upstream: {grpc: {method: shop.v1.Orders/Get, message: []}}}}}"
            ),
            (
                "tests/a.yaml:2:114: error: tests.a.expect.upstream.grpc.message: "
                "the method has one message here, and this is a list; write one message"
            ),
        ),
        (
            "tests: {a: {request: {grpc: shop.v1.Orders/Get}, expect: {grpc: NOTFOUND}}}",
            (
                "tests/a.yaml:2:65: error: tests.a.expect.grpc: not a gRPC status (found 'NOTFOUND'); "
                "did you mean 'NOT_FOUND'?"
            ),
        ),
        (
            "tests: {a: {request: /, expect: {grpc: {message: {id: 1}}}}}",
            (
                "tests/a.yaml:2:40: error: tests.a.expect.grpc: the request is no gRPC call, so its response has no message; "
                "write 'json' or 'body'"
            ),
        ),
        (
            "tests: {a: {request: {grpc: shop.v1.Old/Get}, expect: {grpc: OK}}}",
            (
                "tests/a.yaml:2:29: error: tests.a.request.grpc: the upstream 'old' of the route 'old' does not use HTTP/2, "
                "and gRPC needs it; write protocol: grpc in upstreams.old"
            ),
        ),
        (
            "tests: {a: {request: {grpc: shop.v1.Orders/Get, url: /items}, expect: {grpc: OK}}}",
            (
                "tests/a.yaml:2:54: error: tests.a.request.url: the path of a gRPC call is that of its method "
                "(found '/items'); write scheme and host only"
            ),
        ),
        (
            "tests: {a: {request: {grpc: shop.v1.Orders/Get, json: {}}, expect: {grpc: OK}}}",
            (
                "tests/a.yaml:2:55: error: tests.a.request.json: a gRPC call has a message; "
                "write grpc: {method: …, message: …}"
            ),
        ),
        (
            "tests: {a: {request: {grpc: shop.v1.Orders/Get, method: PUT}, expect: {grpc: OK}}}",
            (
                "tests/a.yaml:2:57: error: tests.a.request.method: a gRPC call is always POST (found 'PUT'); remove it"
            ),
        ),
        (
            "tests: {a: {request: {headers: {a: b}}, expect: 200}}",
            (
                "tests/a.yaml:2:22: error: tests.a.request: 'url' is missing; add 'url', or 'grpc' for a gRPC call"
            ),
        ),
    ],
)
def test_a_mistake_has_its_place_value_and_remedy(text: str, problem: str) -> None:
    assert list(map(str, _read(text).problems)) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "upstreams: {old: {grpc: NOT_FOUND}}",
            (
                "upstreams.old.grpc: the upstream 'old' does not use HTTP/2, so it cannot send a gRPC status "
                "(found 'NOT_FOUND'); write an HTTP status, or protocol: grpc in upstreams.old"
            ),
        ),
        (
            "upstreams: {orders: [200, {grpc: {method: shop.v1.Orders/List, message: {id: x}}}]}",
            "upstreams.orders[1].grpc.message.id: the field 'id' is of type int64 (found 'x'); write such a value",
        ),
        (
            "upstreams: {orders: {grpc: {message: {id: 1}}}}",
            (
                "upstreams.orders.grpc.message: a message needs its method, because that has its type; "
                "write method: package.Service/Method"
            ),
        ),
        (
            "upstreams: {orders: {status: 503, grpc: OK}}",
            "upstreams.orders.status: 'status' is not for gRPC; write it below 'grpc'",
        ),
        (
            "upstreams: {orders: {grpc: {trailers: {te: a}}}}",
            (
                "upstreams.orders.grpc.trailers.te: 'te' frames the message or belongs to the connection, "
                "and xds test sets it; remove it"
            ),
        ),
    ],
)
def test_a_mistake_in_an_answer(text: str, problem: str) -> None:
    reading = _read(f"{text}\ntests: {{a: {{request: /, expect: 404}}}}")
    assert [str(one).partition("error: ")[2] for one in reading.problems] == [problem]


def test_a_message_behind_a_reverse_bridge_has_its_route() -> None:
    reading = _read("""
        upstreams: {old: {grpc: {method: shop.v1.Reverse/Get, message: {id: 1}}}}
        tests: {a: {request: {grpc: shop.v1.Reverse/Get}, expect: {grpc: OK}}}
        """)
    assert reading.problems == ()


def test_a_descriptor_set_that_is_none() -> None:
    gateway = read_gateway(GATEWAY).gateway
    assert gateway is not None
    text = b"descriptors: {inline: text}\ntests: {a: {request: /, expect: 404}}"
    (problem,) = read({"tests/a.yaml": text}, {}, gateway).problems
    assert str(problem).startswith(
        "tests/a.yaml:1:14: error: descriptors: this is not a descriptor set; write it"
    )
