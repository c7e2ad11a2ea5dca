"""The client side of the protocol, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from tests.support.resources import gateway
from xds_server.discovery import wire
from xds_server.discovery.stream import Protocol, Stream
from xds_server.discovery.types import CLUSTER, ENDPOINT, ResourceType
from xds_server.serving.watch_client import WatchClient, unpacked

SERVED = gateway(["a", "b"], {"/": "a"})
RESPONSES: dict[Protocol, Any] = {
    Protocol.SOTW: lambda one: discovery_pb2.DiscoveryResponse.FromString(wire.sotw(one)),
    Protocol.DELTA: lambda one: discovery_pb2.DeltaDiscoveryResponse.FromString(wire.delta(one)),
}


def client(protocol: Protocol, type_: ResourceType, *names: str, reject: str | None = None) -> WatchClient:
    return WatchClient(type_, names, protocol, node=base_pb2.Node(id="n"), reject=reject)


@pytest.mark.parametrize("protocol", list(Protocol))
def test_it_subscribes_reads_and_accepts(protocol: Protocol) -> None:
    one, stream = client(protocol, CLUSTER), Stream(protocol)
    stream.receive(one.first())
    assert stream.node is not None
    assert stream.node.id == "n"
    (response,) = stream.responses(SERVED, 0)
    update, answer = one.receive(RESPONSES[protocol](response))
    assert [received.name for received in update.resources] == ["a", "b"]
    assert type(stream.receive(answer)).__name__ == "Acked"
    assert stream.responses(SERVED, 0) == []


@pytest.mark.parametrize("protocol", list(Protocol))
def test_it_rejects_when_it_is_told_to(protocol: Protocol) -> None:
    one, stream = client(protocol, ENDPOINT, "a", reject="no"), Stream(protocol)
    stream.receive(one.first())
    (response,) = stream.responses(SERVED, 0)
    update, answer = one.receive(RESPONSES[protocol](response))
    assert [received.name for received in update.resources] == ["a"]
    event = stream.receive(answer)
    assert getattr(event, "message", None) == "no"


@pytest.mark.parametrize("protocol", list(Protocol))
def test_everything_of_a_type_without_old_wildcard_is_asked_for_by_the_star(protocol: Protocol) -> None:
    one, stream = client(protocol, ENDPOINT), Stream(protocol)
    stream.receive(one.first())
    (response,) = stream.responses(SERVED, 0)
    assert len(response.resources) == 2


def test_a_resource_that_is_no_such_message_is_none_and_no_error() -> None:
    assert unpacked(any_pb2.Any(type_url=CLUSTER.url, value=b"\xff")) is None
    assert unpacked(any_pb2.Any(type_url="type.googleapis.com/no.Such", value=b"")) is None
    assert unpacked(any_pb2.Any(type_url=CLUSTER.url, value=b"")) is not None
