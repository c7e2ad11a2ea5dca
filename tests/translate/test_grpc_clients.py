"""What clients of gRPC that speak xDS get of the configuration of Envoy."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf import json_format

from tests.support.folder import snapshot
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE
from xds_server.translate.grpc_clients import GrpcClients

GATEWAY = """
listeners:
  calls: {address: 10.96.0.1, port: 80, bind: false}
  bytes: {address: 10.96.0.2, port: 90, bind: false, protocol: tcp}
upstreams:
  one: {endpoints: ["10.0.0.1:1", {address: "10.0.0.2:1", weight: 3}], protocol: grpc}
  two: {endpoints: [], protocol: grpc}
stream_routes:
  bytes: {listeners: [bytes], split: {one: 1, two: 9}}
routes:
"""
SERVICES = {
    "10.96.0.1:80": ("calls:80", "calls.shop:80"),
    "10.96.0.2:90": ("bytes:90",),
    "10.96.0.3:80": ("x:80",),
}


def _envoys(routes: str) -> Snapshot:
    return snapshot(GATEWAY + routes)


def _routes(found: Snapshot, name: str = "10.96.0.1:80") -> list[dict[str, Any]]:
    table = route_pb2.RouteConfiguration.FromString(found[ROUTE][name].body)
    (host,) = table.virtual_hosts
    assert list(host.domains) == ["*"]
    return [json_format.MessageToDict(one, preserving_proto_field_name=True) for one in host.routes]


@pytest.mark.parametrize(
    ("route", "match"),
    [
        ("path: /a.B/C", {"path": "/a.B/C"}),
        ("path: /a.B/*", {"safe_regex": {"regex": r"/a\.B(?:/.*)?"}}),
        ("path: /a/b, methods: [POST]", {"path": "/a/b"}),
        (
            "path: /a/b, headers: {x: y}",
            {"path": "/a/b", "headers": [{"name": "x", "string_match": {"exact": "y"}}]},
        ),
        ("path: /a/b, methods: [GET]", None),
        ("path: /a/b, query: {x: y}", None),
    ],
)
def test_conditions_that_no_call_meets_are_left_out(route: str, match: dict[str, Any] | None) -> None:
    found = GrpcClients().snapshot(_envoys(f"  r: {{{route}, listeners: [calls], upstream: one}}"), SERVICES)
    named = [one["match"] for one in _routes(found) if one.get("name") == "r"]
    assert named == ([] if match is None else [match])


def test_each_name_has_a_listener_and_clusters_have_weighted_localities() -> None:
    envoys = _envoys("  r: {listeners: [calls], upstream: one, timeout: 3s}")
    clients = GrpcClients()
    found = clients.snapshot(envoys, SERVICES)
    assert list(found[LISTENER]) == ["bytes:90", "calls.shop:80", "calls:80"]
    listener = listener_pb2.Listener.FromString(found[LISTENER]["calls.shop:80"].body)
    manager = hcm_pb2.HttpConnectionManager()
    assert listener.api_listener.api_listener.Unpack(manager)
    assert manager.rds.route_config_name == "10.96.0.1:80"
    assert sorted(found[CLUSTER]) == sorted(found[ENDPOINT]) == ["one", "two"]
    assigned = endpoint_pb2.ClusterLoadAssignment.FromString(found[ENDPOINT]["one"].body)
    assert assigned.endpoints[0].load_balancing_weight.value == 4
    assert assigned.endpoints[0].HasField("locality")
    (route,) = (one for one in _routes(found) if one.get("name") == "r")
    assert route["route"]["max_stream_duration"]["max_stream_duration"] == "3s"
    (split,) = _routes(found, "10.96.0.2:90")
    weights = {one["name"]: one["weight"] for one in split["route"]["weighted_clusters"]["clusters"]}
    assert weights == {"one": 1, "two": 9}
    again = clients.snapshot(envoys, SERVICES)
    assert all(again[type_][name] is one for type_ in found for name, one in found[type_].items())
