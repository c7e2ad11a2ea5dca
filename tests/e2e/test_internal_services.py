"""A service with a stream that the real Envoy finds by the service's name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2 as grpc_log_pb2
from envoy.service.accesslog.v3 import als_pb2

from filters.policy_server import internal_cluster
from filters.rules import Service
from filters.streaming import StreamMethod
from tests.support.envoy import Envoy
from tests.support.gateway import compiled, write
from tests.support.ports import free_port
from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import CLUSTER, LISTENER
from xds_server.gateway.model.ports import ports
from xds_server.gateway.model.telemetry import NO_TELEMETRY
from xds_server.policy_server.server import PolicyServer
from xds_server.translate import clusters, listeners
from xds_server.translate.protobuf import packed
from xds_server.translate.readable import plain
from xds_server.translate.static import bootstrap

NAME = "access-log"
GATEWAY = """
listeners: {http: {port: PORT, address: 127.0.0.1}}
routes: {hello: {path: /, respond: {body: hello}}}
"""


def _log() -> accesslog_pb2.AccessLog:
    config = grpc_log_pb2.HttpGrpcAccessLogConfig()
    config.common_config.log_name = "test"
    config.common_config.transport_api_version = 2
    config.common_config.buffer_flush_interval.FromMilliseconds(50)
    config.common_config.grpc_service.envoy_grpc.cluster_name = internal_cluster(NAME)
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.http_grpc", typed_config=packed(config))


class _Receiving:
    """A stream of access logs: it answers once, after the last message."""

    def __init__(self, paths: asyncio.Queue[str]) -> None:
        self._paths = paths

    def receive(self, message: bytes) -> None:
        for entry in als_pb2.StreamAccessLogsMessage.FromString(message).http_logs.log_entry:
            self._paths.put_nowait(entry.request.path)

    def end(self) -> bytes:
        return als_pb2.StreamAccessLogsResponse().SerializeToString()

    def cancel(self) -> None:
        pass


async def test_envoy_streams_its_access_log_to_an_internal_service(tmp_path: Path) -> None:
    paths: asyncio.Queue[str] = asyncio.Queue()

    stream = StreamMethod(
        path="/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
        open=lambda _: _Receiving(paths),
    )
    service = Service(name="envoy.service.accesslog.v3.AccessLogService", streams=(stream,))
    server = PolicyServer([service])
    port = free_port()
    gateway = compiled(write(tmp_path / "gateway", gateway=GATEWAY.replace("PORT", str(port))))
    try:
        address = await server.start("127.0.0.1:0")
        (only,) = ports(gateway.gateway.sections)
        (listener,) = listeners.listeners(
            only,
            (),
            listeners.Common((), [_log()], {}, NO_TELEMETRY, routes_choose=False),
        )
        cluster = Resource.of(clusters.internal_service(NAME, address))
        served = gateway.snapshot.replacing(
            {LISTENER: {listener.name: Resource.of(listener)}, CLUSTER: {cluster.name: cluster}}
        )
        with Envoy(plain(bootstrap(served)), tmp_path) as envoy:
            await asyncio.to_thread(envoy.ready)
            response = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/logged")
            assert response.status_code == 404
            async with asyncio.timeout(30):
                assert await paths.get() == "/logged"
    finally:
        await server.stop(0)
