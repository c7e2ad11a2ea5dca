"""Resources as plain values are what protobuf's own JSON mapping says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from google.protobuf import any_pb2, json_format, struct_pb2, wrappers_pb2
from google.protobuf.message import Message

from tests.support.folder import snapshot
from xds_server.translate.readable import decoded, plain

CASES = sorted((Path(__file__).parent / "cases").glob("*/in.yaml"))
FREE_OF_FILES = [
    case for case in CASES if not any(one in case.read_text() for one in ("file:", "env:", ".proto"))
]


def _library(message: Message) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize("case", FREE_OF_FILES, ids=lambda case: case.parent.name)
def test_every_resource_of_the_golden_cases_reads_as_the_library_reads_it(case: Path) -> None:
    resources = snapshot(case.read_text())
    for type_ in resources:
        for resource in resources[type_].values():
            message = decoded(type_, resource)
            assert plain(message) == _library(message)


@pytest.mark.parametrize(
    "message",
    [
        base_pb2.Metadata(
            filter_metadata={"a": struct_pb2.Struct(fields={"x": struct_pb2.Value(number_value=1)})}
        ),
        base_pb2.DataSource(inline_bytes=b"\x00\xff"),
        cluster_pb2.Cluster(lb_policy=cluster_pb2.Cluster.MAGLEV, upstream_bind_config={}),
        cluster_pb2.Cluster.CommonLbConfig(healthy_panic_threshold={"value": float("inf")}),
        cluster_pb2.Cluster.SlowStartConfig(aggression={"default_value": 0.1, "runtime_key": "x"}),
        cluster_pb2.Cluster.RingHashLbConfig(minimum_ring_size=wrappers_pb2.UInt64Value(value=2**60)),
        extension_pb2.TypedExtensionConfig(typed_config=any_pb2.Any()),
    ],
    ids=lambda message: type(message).__name__,
)
def test_values_of_every_kind_read_as_the_library_reads_them(message: Message) -> None:
    assert plain(message) == _library(message)


def test_an_any_of_a_well_known_type_reads_as_the_library_reads_it() -> None:
    packed = any_pb2.Any()
    packed.Pack(struct_pb2.Struct(fields={"x": struct_pb2.Value(string_value="y")}))
    message = extension_pb2.TypedExtensionConfig(name="n", typed_config=packed)
    assert plain(message) == _library(message)


def test_keys_of_maps_are_sorted_so_that_two_runs_print_the_same() -> None:
    fields = {str(number): struct_pb2.Value(number_value=number) for number in range(9, -1, -1)}
    message = base_pb2.Metadata(
        filter_metadata={"b": struct_pb2.Struct(fields=fields), "a": struct_pb2.Struct()}
    )
    metadata = plain(message)["filter_metadata"]
    assert list(metadata) == ["a", "b"]
    assert list(metadata["b"]) == [str(number) for number in range(10)]
