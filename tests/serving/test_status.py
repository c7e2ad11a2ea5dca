"""What can be seen of the streams: client status over gRPC, and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from envoy.type.matcher.v3 import node_pb2

from tests.support.conversation import snapshot
from tests.support.wait import eventually
from xds_server.discovery.types import CLUSTER, SECRET, ResourceType
from xds_server.serving.metrics import Metrics
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store

ACKED = config_dump_shared_pb2.ACKED
NACKED = config_dump_shared_pb2.NACKED
DOES_NOT_EXIST = config_dump_shared_pb2.DOES_NOT_EXIST
REQUESTED = config_dump_shared_pb2.REQUESTED


class Served:
    def __init__(self) -> None:
        self.store = Store(quarantine=True)
        self.metrics = Metrics(self.store)
        self.store.observe(self.metrics.observe)
        self.server = XdsServer(self.store)
        self.channel: grpc.aio.Channel

    async def ask(self, type_: ResourceType, *names: str, node: str = "n1") -> Any:
        stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self.channel).DeltaAggregatedResources()
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_.url, resource_names_subscribe=names)
        request.node.id = node
        await stream.write(request)
        return stream

    async def status(self, *matchers: node_pb2.NodeMatcher) -> list[csds_pb2.ClientConfig]:
        stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(self.channel)
        answer = await stub.FetchClientStatus(csds_pb2.ClientStatusRequest(node_matchers=matchers))
        return list(answer.config)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def answer(stream: Any, message: str = "") -> Any:
    response = await stream.read()
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
    if message:
        request.error_detail.message = message
    await stream.write(request)
    return response


@pytest.fixture
async def xds() -> AsyncIterator[Served]:
    served = Served()
    port = await served.server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        served.channel = channel
        yield served
    await served.server.stop()


async def test_client_status_tells_what_is_accepted_and_what_does_not_exist(xds: Served) -> None:
    xds.store.publish(snapshot(cluster={"a": "1"}))
    stream = await xds.ask(CLUSTER, "a", "missing")
    await answer(stream)
    await eventually(lambda: xds.value("xds_acks_total", type="cluster") == 1, "the acknowledgement")
    (client,) = await xds.status()
    found = {one.name: (one.config_status, one.client_status) for one in client.generic_xds_configs}
    assert found == {"missing": (csds_pb2.NOT_SENT, DOES_NOT_EXIST), "a": (csds_pb2.SYNCED, ACKED)}
    assert client.node.id == "n1"
    stream.cancel()


async def test_a_rejected_resource_shows_the_clients_own_words(xds: Served) -> None:
    xds.store.publish(snapshot(cluster={"a": "1"}))
    stream = await xds.ask(CLUSTER, "a")
    await answer(stream, "cannot use a")
    await stream.read()
    (client,) = await xds.status()
    (one,) = client.generic_xds_configs
    assert (one.config_status, one.client_status) == (csds_pb2.ERROR, NACKED)
    assert one.error_state.details == "cannot use a"
    stream.cancel()


async def test_what_was_sent_and_not_answered_is_stale(xds: Served) -> None:
    xds.store.publish(snapshot(cluster={"a": "1"}))
    stream = await xds.ask(CLUSTER)
    await stream.read()
    (client,) = await xds.status()
    (one,) = client.generic_xds_configs
    assert (one.config_status, one.client_status) == (csds_pb2.STALE, REQUESTED)
    stream.cancel()


async def test_secrets_are_named_and_never_shown(xds: Served) -> None:
    xds.store.publish(snapshot(secret={"key": "1"}))
    stream = await xds.ask(SECRET, "key")
    await stream.read()
    (client,) = await xds.status()
    (one,) = client.generic_xds_configs
    assert one.name == "key"
    assert not one.HasField("xds_config")
    stream.cancel()


async def test_clients_are_chosen_by_their_node(xds: Served) -> None:
    xds.store.publish(snapshot(cluster={"a": "1"}))
    streams = [await xds.ask(CLUSTER, node=node) for node in ("edge-1", "core-1")]
    for stream in streams:
        await stream.read()
    matcher = node_pb2.NodeMatcher()
    matcher.node_id.prefix = "edge"
    assert [one.node.id for one in await xds.status(matcher)] == ["edge-1"]
    assert len(await xds.status()) == 2
    for stream in streams:
        stream.cancel()


async def test_metrics_count_pushes_answers_streams_and_quarantine(xds: Served) -> None:
    xds.store.publish(snapshot(cluster={"a": "1", "b": "1"}))
    stream = await xds.ask(CLUSTER)
    await answer(stream)
    xds.store.publish(snapshot(cluster={"a": "2", "b": "1"}))
    await answer(stream, "cannot use a")
    await stream.read()
    assert xds.value("xds_connected_streams", group="", protocol="delta") == 1
    await eventually(lambda: xds.value("xds_pushes_total", type="cluster") == 3, "three pushes")
    assert xds.value("xds_pushed_resources_total", type="cluster") == 4
    assert xds.value("xds_acks_total", type="cluster") == 1
    assert xds.value("xds_rejects_total", type="cluster") == 1
    assert xds.value("xds_quarantined_resources", group="") == 1
    assert xds.value("xds_resources", group="", type="cluster") == 2
    assert xds.value("xds_ack_latency_seconds_count", type="cluster") == 1
    assert b"xds_convergence_seconds_bucket" in xds.metrics.text()
    await stream.done_writing()
    await eventually(
        lambda: xds.value("xds_connected_streams", group="", protocol="delta") == 0, "the end of the streams"
    )
