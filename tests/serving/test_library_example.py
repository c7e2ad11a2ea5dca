"""The example of the library runs, and serves each group its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc.aio
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.endpoint.v3 import eds_pb2_grpc

from xds_server.discovery.stream import StreamLimits
from xds_server.serving.server import Limits

EXAMPLE = Path(__file__).parents[2] / "examples" / "library" / "serve.py"


async def ports_of(address: str, cluster: str) -> list[int]:
    async with grpc.aio.insecure_channel(address) as channel:
        stream = eds_pb2_grpc.EndpointDiscoveryServiceStub(channel).DeltaEndpoints()
        request = discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=["users"])
        request.node.cluster = cluster
        await stream.write(request)
        (one,) = (await stream.read()).resources
        stream.cancel()
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(one.resource.value)
    return [
        lb.endpoint.address.socket_address.port_value
        for locality in assignment.endpoints
        for lb in locality.lb_endpoints
    ]


async def test_the_example_serves_each_group_its_own_endpoints() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), "127.0.0.1:0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        address = f"127.0.0.1:{line.rpartition(' ')[2].strip()}"
        assert await ports_of(address, "blue") == [9001, 9003]
        assert await ports_of(address, "anything") == [9002]
    finally:
        process.terminate()
        await process.communicate()


def test_limits_of_a_stream_are_found_by_their_earlier_names_too() -> None:
    assert Limits(patience=1, linger=2, gather=3, silence=4, stall=5, types=6) == StreamLimits(
        ack_timeout=1, removal_delay=2, resume_window=3, first_request_timeout=4, write_timeout=5, types=6
    )
