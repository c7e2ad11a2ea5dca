"""What an open stream keeps in memory. The node of a real Envoy lists its extensions and has 60 KiB."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.load_stats.v3 import lrs_pb2

from benchmarks.grpc_connection import GrpcConnection, request_headers
from tests.support.wait import eventually
from tests.support.xds import XdsThread
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER
from xds_server.serving.load_reports import LoadReports

STREAMS, SIZE = 40, 200_000
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def _requests() -> dict[str, bytes]:
    node = base_pb2.Node(id="e1", extensions=[base_pb2.Extension(name="x" * SIZE)])
    return {
        ADS: discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=CLUSTER.url).SerializeToString(),
        LRS: lrs_pb2.LoadStatsRequest(node=node).SerializeToString(),
    }


@pytest.mark.parametrize("path", [ADS, LRS], ids=["resources", "load reports"])
async def test_an_open_stream_does_not_keep_its_first_message(path: str, traced: None) -> None:
    request, answered = _requests()[path], set[int]()
    reports = LoadReports()
    with XdsThread(load_reports=reports, first_at_once=STREAMS) as xds:
        xds.run(lambda: reports.request(3600))
        xds.publish(Snapshot.of({CLUSTER: [Resource.from_bytes("a", b"")]}))
        client = GrpcConnection(lambda stream, _message: answered.add(stream), lambda _stream, _why: None)
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", xds.port)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(STREAMS):
            client.send(client.open(request_headers(path)), request)
        await eventually(lambda: len(answered) == STREAMS, "a response on every stream")
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
        client.close()
    assert kept < STREAMS * SIZE / 4
