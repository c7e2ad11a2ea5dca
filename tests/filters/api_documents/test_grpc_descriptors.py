"""gRPC services as references: from .proto files that are compiled with their comments."""

from __future__ import annotations

import json

import pytest

from filters.api_documents import grpc_descriptors
from filters.api_documents.example_values import of_schema
from filters.api_documents.faults import DocumentFaults
from filters.api_documents.reference import ApiReference, Schema
from xds_server.sources.protoc import ProtoCompiler

PROTO = b"""
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";

// Sells things.
// Every day.
service Shop {
  // Returns an order.
  rpc GetOrder(GetOrderRequest) returns (Order);
  rpc WatchOrders(GetOrderRequest) returns (stream Order) { option deprecated = true; }
  rpc Talk(stream GetOrderRequest) returns (stream Order);
}
service Other { rpc Do(Order) returns (Order); }
message GetOrderRequest { string order_id = 1; /* behind */ }
// An order.
message Order {
  int64 id = 1;
  repeated Line lines = 2; // Its lines.
  map<string, Line> by_sku = 3;
  State state = 4;
  google.protobuf.Timestamp at = 5;
  Order parent = 6 [deprecated = true];
  bytes raw = 7;
  message Line { string sku = 1; }
  enum State { STATE_UNKNOWN = 0; STATE_PAID = 1; }
}
message Unused { string a = 1; }
"""


@pytest.fixture(scope="module")
def compiled() -> bytes:
    return ProtoCompiler()({"shop.proto": PROTO})


@pytest.fixture(scope="module")
def reference(compiled: bytes) -> ApiReference:
    return grpc_descriptors.read([compiled])


def test_methods_are_operations_with_their_comments(reference: ApiReference) -> None:
    assert [(one.id, one.method, one.path, one.deprecated) for one in reference.operations] == [
        ("shop.v1.Shop.GetOrder", "unary", "/shop.v1.Shop/GetOrder", False),
        ("shop.v1.Shop.WatchOrders", "server stream", "/shop.v1.Shop/WatchOrders", True),
        ("shop.v1.Shop.Talk", "stream", "/shop.v1.Shop/Talk", False),
        ("shop.v1.Other.Do", "unary", "/shop.v1.Other/Do", False),
    ]
    assert reference.operations[0].description == "Returns an order."
    assert [(one.name, one.description) for one in reference.tags] == [
        ("shop.v1.Shop", "Sells things.\nEvery day."),
        ("shop.v1.Other", ""),
    ]


def test_messages_are_schemas_as_in_json(reference: ApiReference) -> None:
    assert list(reference.schemas) == [
        "shop.v1.GetOrderRequest",
        "shop.v1.Order",
        "shop.v1.Order.Line",
        "shop.v1.Order.State",
    ]
    order = reference.schemas["shop.v1.Order"]
    assert order.description == "An order."
    assert {one.name: one.schema.label for one in order.properties} == {
        "id": "string (int64)",
        "lines": "list of shop.v1.Order.Line",
        "bySku": "map of shop.v1.Order.Line",
        "state": "shop.v1.Order.State",
        "at": "string (date-time)",
        "parent": "shop.v1.Order",
        "raw": "string (byte)",
    }
    assert [(one.name, one.schema.description) for one in order.properties if one.schema.description] == [
        ("lines", "Its lines.")
    ]
    assert reference.schemas["shop.v1.Order.State"].enum == ("STATE_UNKNOWN", "STATE_PAID")
    assert next(one for one in order.properties if one.name == "parent").schema.deprecated


def test_examples_are_json_of_the_message(reference: ApiReference) -> None:
    value = of_schema(Schema(ref="shop.v1.Order"), reference)
    assert value["lines"] == [{"sku": "text"}]
    assert (value["id"], value["state"]) == ("0", "STATE_UNKNOWN")
    assert json.dumps(value)


def test_some_services_alone(compiled: bytes) -> None:
    reference = grpc_descriptors.read([compiled], ["shop.v1.Shop"])
    assert (reference.title, reference.description) == ("Shop", "Sells things.\nEvery day.")
    assert len(reference.operations) == 3


@pytest.mark.parametrize(
    ("content", "services", "message"),
    [
        (b"\xff", (), "this is not a descriptor set"),
        (b"", (), "this is not a descriptor set"),
        (None, ("shop.v1.Shp",), "there is no service 'shop.v1.Shp'"),
    ],
)
def test_faults(compiled: bytes, content: bytes | None, services: tuple[str, ...], message: str) -> None:
    with pytest.raises(DocumentFaults, match=message) as caught:
        grpc_descriptors.read([compiled if content is None else content], services)
    assert caught.value.faults[0].remedy


def test_files_without_a_service_are_no_api() -> None:
    compiled = ProtoCompiler()({"a.proto": b'syntax = "proto3"; message A {}'})
    with pytest.raises(DocumentFaults, match="the files have no service"):
        grpc_descriptors.read([compiled])
