"""The gRPC edge, asked by a plain gRPC client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.service.cluster.v3 import cds_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import wrappers_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, LISTENER, custom
from xds_server.serving.events import Acked, Connected, Disconnected, Event, Nacked
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store

Request = discovery_pb2.DiscoveryRequest
DeltaRequest = discovery_pb2.DeltaDiscoveryRequest


def served(**clusters: str) -> Snapshot:
    return Snapshot.of(
        {CLUSTER: [Resource.from_bytes(name, b"", version) for name, version in clusters.items()]}
    )


class Served:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.store = Store(self.events.append)
        self.server = XdsServer(self.store, max_streams=3)
        self.channel: grpc.aio.Channel

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
async def xds() -> AsyncIterator[Served]:
    served = Served()
    port = await served.server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        served.channel = channel
        yield served
    await served.server.stop()


async def test_delta_ads_serves_updates_and_records_answers(xds: Served) -> None:
    xds.store.publish(served(a="1"))
    stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(xds.channel).DeltaAggregatedResources()
    request = DeltaRequest(type_url=CLUSTER.url)
    request.node.id = "node-1"
    await stream.write(request)
    first = await stream.read()
    assert [(one.name, one.version) for one in first.resources] == [("a", "1")]
    assert first.control_plane.identifier == "xds-gateway"
    await stream.write(DeltaRequest(type_url=CLUSTER.url, response_nonce=first.nonce))
    xds.store.publish(served(a="2"))
    second = await stream.read()
    rejection = DeltaRequest(type_url=CLUSTER.url, response_nonce=second.nonce)
    rejection.error_detail.message = "no such thing"
    await stream.write(rejection)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert xds.seen(Connected)[0].node.id == "node-1"
    assert xds.seen(Acked)[0].versions == {"a": "1"}
    (nacked,) = xds.seen(Nacked)
    assert (nacked.message, nacked.blamed) == ("no such thing", {"a": "2"})
    assert xds.seen(Disconnected)[0].node.id == "node-1"
    assert xds.server.services.sessions == {}


async def test_a_custom_type_is_served_over_delta_ads(xds: Served) -> None:
    rules = custom("rule", "google.protobuf.StringValue")
    xds.store.publish(
        Snapshot.of({rules: [Resource.of(wrappers_pb2.StringValue(value="1000/hour"), "free")]})
    )
    stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(xds.channel).DeltaAggregatedResources()
    await stream.write(DeltaRequest(type_url=rules.url, resource_names_subscribe=["*"]))
    (one,) = (await stream.read()).resources
    found = wrappers_pb2.StringValue()
    assert one.resource.Unpack(found)
    assert (one.name, found.value) == ("free", "1000/hour")
    stream.cancel()


async def test_a_single_type_service_serves_its_type_in_both_protocols(xds: Served) -> None:
    xds.store.publish(served(a="1"))
    stub = cds_pb2_grpc.ClusterDiscoveryServiceStub(xds.channel)
    sotw = stub.StreamClusters()
    await sotw.write(Request())
    response = await sotw.read()
    assert (response.type_url, len(response.resources)) == (CLUSTER.url, 1)
    sotw.cancel()
    delta = stub.DeltaClusters()
    await delta.write(DeltaRequest())
    assert [one.name for one in (await delta.read()).resources] == ["a"]
    delta.cancel()


async def test_a_single_type_service_refuses_another_type(xds: Served) -> None:
    stream = cds_pb2_grpc.ClusterDiscoveryServiceStub(xds.channel).StreamClusters()
    await stream.write(Request(type_url=LISTENER.url))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_aggregated_request_without_type_is_an_invalid_argument(xds: Served) -> None:
    stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(xds.channel).StreamAggregatedResources()
    await stream.write(Request())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_more_streams_than_allowed_are_refused(xds: Served) -> None:
    xds.store.publish(served(a="1"))
    stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(xds.channel)
    open_streams = [stub.StreamAggregatedResources() for _ in range(3)]
    for stream in open_streams:
        await stream.write(Request(type_url=CLUSTER.url))
        await stream.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.StreamAggregatedResources().read()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in open_streams:
        stream.cancel()


async def test_health_says_that_it_serves(xds: Served) -> None:
    answer = await health_pb2_grpc.HealthStub(xds.channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(xds: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(xds.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {one.name for one in (await call.read()).list_services_response.service}
    assert "envoy.service.discovery.v3.AggregatedDiscoveryService" in names
    await call.write(
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="envoy.service.cluster.v3.ClusterDiscoveryService"
        )
    )
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    call.cancel()


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    holder = XdsServer(Store())
    port = await holder.start("127.0.0.1:0")
    with pytest.raises(OSError, match="cannot listen"):
        await XdsServer(Store()).start(f"127.0.0.1:{port}")
    await holder.stop()


async def test_two_servers_of_one_store_give_no_stream_the_number_of_another(xds: Served) -> None:
    xds.store.publish(served(a="1"))
    other = XdsServer(xds.store)
    port = await other.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for one in (xds.channel, channel):
            stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(one).DeltaAggregatedResources()
            await stream.write(DeltaRequest(type_url=CLUSTER.url))
            await stream.read()
            stream.cancel()
    await other.stop()
    first, second = xds.seen(Connected)
    assert first.stream != second.stream
