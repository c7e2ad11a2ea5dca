"""What differs between the gRPC messages and statuses that are expected and those that came."""

from __future__ import annotations

from typing import Any

import pytest

from filters.language import INVALID, Problems, decoder_for
from xds_server.sources.protoc import ProtoCompiler
from xds_server.testing.comparison import Difference, Outcome, Received, compare
from xds_server.testing.language import Expected
from xds_server.testing.messages import Types, encoded, framed, without_web_trailers

PROTO = b"""
syntax = "proto3";
package shop.v1;
message Order { int64 id = 1; string user_name = 2; repeated string tags = 3; }
service Orders { rpc Get(Order) returns (Order); rpc List(Order) returns (stream Order); }
"""
TYPES = Types([ProtoCompiler()({"shop.proto": PROTO})])
GET, LIST = "shop.v1.Orders/Get", "shop.v1.Orders/List"
ORDER = TYPES.required(GET).output_type
BODY = framed(encoded(ORDER, {"id": 7, "user_name": "Ann", "tags": ["a", "b"]}, streams=False))
OUTCOME = Outcome(
    status=200,
    headers=(("content-type", "application/grpc"),),
    body=BODY,
    trailers=(("grpc-status", "0"), ("x-cost", "3")),
    call=GET,
    received=(Received(upstream="orders", method="POST", path=f"/{GET}", headers=(), body=BODY),),
)
ONLY_TRAILERS = Outcome(
    status=200, headers=(("grpc-status", "5"), ("grpc-message", "no 100 %25"), ("x-cost", "1")), call=GET
)


def _differences(expected: Any, outcome: Outcome = OUTCOME) -> list[Difference]:
    problems = Problems()
    decoded = decoder_for(Expected)(expected, (), problems)
    assert decoded is not INVALID, problems
    return list(compare(decoded, outcome, TYPES))


@pytest.mark.parametrize(
    "expected",
    [
        {"grpc": "OK"},
        {"grpc": {"message": {"id": 7}}},
        {"grpc": {"message": {"id": "7", "userName": "Ann", "tags": ["a", "b"]}}},
        {"grpc": {"trailers": {"x-cost": "3", "x-other": {"present": False}}}, "headers": {"x-cost": {"present": False}}},
        {"upstream": {"grpc": GET}},
        {"upstream": {"grpc": {"method": GET, "message": {"user_name": "Ann"}}}},
    ],
)  # fmt: skip
def test_nothing_differs(expected: Any) -> None:
    assert _differences(expected) == []


@pytest.mark.parametrize(
    ("expected", "path", "wanted", "found"),
    [
        ({"grpc": "NOT_FOUND"}, ("grpc", "status"), "NOT_FOUND", "OK"),
        ({"grpc": {"status_message": "no"}}, ("grpc", "status_message"), "no", "nothing"),
        ({"grpc": {"message": {"id": 8}}}, ("grpc", "message", "id"), '"8"', '"7"'),
        ({"grpc": {"message": {"user_name": ""}}}, ("grpc", "message", "userName"), '""', '"Ann"'),
        ({"grpc": {"message": {"tags": ["a", "c"]}}}, ("grpc", "message", "tags", 1), '"c"', '"b"'),
        ({"grpc": {"trailers": {"x-cost": "4"}}}, ("grpc", "trailers", "x-cost"), "4", "3"),
        ({"upstream": {"grpc": LIST}}, ("upstream", "grpc", "method"), LIST, GET),
        ({"upstream": {"grpc": {"method": GET, "message": {"id": 1}}}}, ("upstream", "grpc", "message", "id"), '"1"', '"7"'),
    ],
)  # fmt: skip
def test_a_difference_has_the_path_of_the_expectation(
    expected: Any, path: tuple[str | int, ...], wanted: str, found: str
) -> None:
    assert _differences(expected) == [Difference(path, wanted, found)]


def test_a_status_without_a_message_is_in_the_headers() -> None:
    expected = {"grpc": {"status": "NOT_FOUND", "status_message": "no 100 %", "trailers": {"x-cost": "1"}}}
    assert _differences(expected, ONLY_TRAILERS) == []
    assert _differences({"grpc": {"status": "OK", "message": {"id": 7}}}, ONLY_TRAILERS) == [
        Difference(("grpc", "status"), "OK", "NOT_FOUND: no 100 %"),
        Difference(("grpc", "message"), '{"id": "7"}', "nothing"),
    ]


def test_a_response_that_is_not_grpc() -> None:
    outcome = Outcome(status=503, body=b"<html>", call=GET)
    assert _differences({"grpc": {"status": "OK", "message": {}}}, outcome) == [
        Difference(("grpc", "status"), "OK", "nothing (HTTP status 503)"),
        Difference(("grpc", "message"), "{}", "the gRPC message is compressed, or no gRPC: <html>"),
    ]
    assert Outcome(status=200, headers=(("grpc-status", "99"),)).grpc_status == "99"


def test_a_stream_is_compared_as_a_whole() -> None:
    two = framed(encoded(ORDER, [{"id": 1}, {"id": 2}], streams=True))
    outcome = Outcome(status=200, body=two, trailers=(("grpc-status", "0"),), call=LIST)
    assert _differences({"grpc": {"message": [{"id": 1}, {"id": 2}]}}, outcome) == []
    (difference,) = _differences({"grpc": {"message": [{"id": 1}]}}, outcome)
    assert difference.path == ("grpc", "message")
    (difference,) = _differences({"grpc": {"message": [{"id": 1}, {"id": 3}]}}, outcome)
    assert difference.path == ("grpc", "message", 1, "id")


def test_the_last_frame_of_grpc_web_has_the_trailers() -> None:
    trailers = b"grpc-status:0\r\nX-Cost: 3\r\n"
    body = BODY + b"\x80" + len(trailers).to_bytes(4, "big") + trailers
    assert without_web_trailers(body) == (BODY, (("grpc-status", "0"), ("x-cost", "3")))
    assert without_web_trailers(BODY) == (BODY, None)
    assert without_web_trailers(b"abc") == (b"abc", None)
