"""Messages of gRPC methods: as JSON, as bytes and in frames, and what does not fit their types."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from filters.language import Mistake
from xds_server.sources.protoc import ProtoCompiler
from xds_server.testing.messages import (
    Types,
    decoded,
    encoded,
    expected,
    framed,
    status_message,
    text_of_status,
    unframed,
)

SHOP = """
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
enum State { STATE_UNSPECIFIED = 0; OPEN = 1; SENT = 2; }
message Line { string item_name = 1; int32 quantity = 2; }
message Order {
  int64 id = 1; State state = 2; repeated Line lines = 3; google.protobuf.Timestamp created = 4;
  map<string, Line> by_name = 5; oneof way { string post = 6; Line van = 7; } repeated string tags = 8;
}
service Orders { rpc Get(Order) returns (Order); rpc List(Order) returns (stream Order); }
"""
DESCRIPTORS = ProtoCompiler()({"shop.proto": SHOP.encode()})
TYPES = Types([DESCRIPTORS])
ORDER = TYPES.required("shop.v1.Orders/Get").input_type
WHOLE = {
    "id": 7,
    "state": "OPEN",
    "lines": [{"item_name": "tea", "quantity": 2}],
    "created": "2026-01-01T00:00:00Z",
    "by_name": {"a": {"quantity": 1}},
    "van": {"item_name": "x"},
    "tags": ["a"],
}


def test_a_message_goes_there_and_back() -> None:
    (content,) = encoded(ORDER, WHOLE, streams=False)
    found = decoded(ORDER, [content], streams=False)
    assert found["id"] == "7"
    assert found["lines"] == [{"itemName": "tea", "quantity": 2}]
    assert found["byName"] == {"a": {"itemName": "", "quantity": 1}}
    assert decoded(ORDER, [content], streams=True) == [found]
    assert encoded(ORDER, None, streams=False) == (b"",)


def test_what_is_expected_has_the_form_of_protobuf_and_nothing_more() -> None:
    wanted = {
        "id": 7,
        "state": 1,
        "lines": [{"item_name": "tea"}],
        "van": {"quantity": "3"},
        "tags": [],
        "by_name": {"a": {}},
    }
    assert expected(ORDER, wanted, streams=False) == {
        "id": "7",
        "state": "OPEN",
        "lines": [{"itemName": "tea"}],
        "van": {"quantity": 3},
        "tags": [],
        "byName": {"a": {}},
    }
    assert expected(ORDER, [{"id": 0}, None], streams=True) == [{"id": "0"}, {}]


@pytest.mark.parametrize(
    ("value", "path", "message", "remedy"),
    [
        ({"idd": 1}, ("idd",), "the message shop.v1.Order has no field 'idd'", "did you mean 'id'?"),
        (
            {"lines": [{}, {"itme_name": "a"}]},
            ("lines", 1, "itme_name"),
            "the message shop.v1.Line has no field 'itme_name'",
            "did you mean 'item_name'?",
        ),
        ({"id": "x"}, ("id",), "the field 'id' is of type int64", "write such a value"),
        ({"state": "OPNE"}, ("state",), "the field 'state' is of type shop.v1.State", "did you mean 'OPEN'?"),
        ({"created": "now"}, ("created",), "is of type google.protobuf.Timestamp", "write such a value"),
        ({"tags": "a"}, ("tags",), "the field 'tags' is of type repeated string", "write a list"),
        ({"lines": {}}, ("lines",), "the field 'lines' is of type repeated shop.v1.Line", "write a list"),
        ({"van": 1}, ("van",), "a message shop.v1.Line is needed", "write its fields, such as {id: 1}"),
        (
            {"by_name": {"a": {"quantiti": 1}}},
            ("by_name", "a", "quantiti"),
            "Line has no field",
            "'quantity'",
        ),
        ({"by_name": 1}, ("by_name",), "the field 'by_name' is of type map", "write an object"),
        ({"post": "a", "van": {}}, (), "not a message shop.v1.Order", "write it in protobuf's JSON form"),
        ("text", (), "a message shop.v1.Order is needed", "write its fields"),
        ([{}], (), "the method has one message here, and this is a list", "write one message"),
    ],
)
def test_a_value_that_does_not_fit_has_its_path_and_remedy(
    value: Any, path: tuple[object, ...], message: str, remedy: str
) -> None:
    for act in (encoded, expected):
        with pytest.raises(Mistake) as caught:
            act(ORDER, value, streams=False)
        assert caught.value.path == path
        assert message in caught.value.message
        assert remedy in caught.value.remedy


def test_a_method_that_nobody_knows() -> None:
    with pytest.raises(Mistake) as caught:
        TYPES.required("shop.v1.Orders/Gte")
    assert caught.value.remedy == "did you mean 'shop.v1.Orders/Get'?"
    with pytest.raises(Mistake) as caught:
        Types().required("shop.v1.Orders/Get")
    assert "protos: [shop.proto]" in caught.value.remedy
    file = descriptor_pb2.FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(file)
    both = Types([DESCRIPTORS, descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()])
    assert both.method("grpc.health.v1.Health/Check") is not None
    assert both.method("shop.v1.Orders/List") is not None


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_go_there_and_back(messages: list[bytes]) -> None:
    assert unframed(framed(messages)) == tuple(messages)


@pytest.mark.parametrize("body", [b"\0", b"\0\0\0\0\2a", b"\1\0\0\0\0", b"text that is no gRPC"])
def test_a_body_that_has_no_frames(body: bytes) -> None:
    with pytest.raises(ValueError, match="gRPC"):
        unframed(body)


@given(st.text())
def test_the_text_of_a_status_is_escaped(text: str) -> None:
    value = status_message(text)
    assert value.isascii()
    assert value.isprintable()
    assert text_of_status(value) == text
