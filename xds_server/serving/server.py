"""A gRPC server with the discovery services, client status, health and reflection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from envoy.service.cluster.v3 import cds_pb2 as _cds
from envoy.service.endpoint.v3 import eds_pb2 as _eds
from envoy.service.extension.v3 import config_discovery_pb2 as _ecds
from envoy.service.listener.v3 import lds_pb2 as _lds
from envoy.service.route.v3 import rds_pb2 as _rds
from envoy.service.route.v3 import srds_pb2 as _srds
from envoy.service.runtime.v3 import rtds_pb2 as _rtds
from envoy.service.secret.v3 import sds_pb2 as _sds
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from xds_server.discovery.stream import StreamLimits
from xds_server.serving import csds
from xds_server.serving import load_reports as lrs
from xds_server.serving.load_reports import LoadReports
from xds_server.serving.services import ADS, SINGLE, Services, one_group
from xds_server.serving.session import GroupOf
from xds_server.serving.store import Store

DESCRIBED = (_cds, _eds, _ecds, _lds, _rds, _srds, _rtds, _sds)
"""The services that reflection describes. Importing them registers them."""

_MIB = 1 << 20


def options(
    *, keepalive: float = 30.0, keepalive_timeout: float = 10.0, max_message: int = 16 * _MIB
) -> list[tuple[str, int]]:
    """Return channel arguments of the server: seconds between pings and for their responses, bytes of a request."""
    return [
        ("grpc.keepalive_time_ms", int(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", int(keepalive_timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", 1000),
        ("grpc.so_reuseport", 0),
    ]


def _waiting(streams: int) -> list[tuple[str, int]]:
    """Return channel arguments that let a whole fleet wait for its turn: an Envoy has a stream for resources, and one for
    load reports. With its own limits of 1,000 and 3,000, gRPC cancels new streams, and those clients try again later.
    """
    return [
        ("grpc.server.max_pending_requests", max(1000, 2 * streams)),
        ("grpc.server.max_pending_requests_hard_limit", max(3000, 2 * streams)),
    ]


_EARLIER = {
    "patience": "ack_timeout",
    "linger": "removal_delay",
    "gather": "resume_window",
    "silence": "first_request_timeout",
    "stall": "write_timeout",
}


def Limits(**values: Any) -> StreamLimits:  # noqa: N802 - the earlier name of a class
    """`StreamLimits` by its earlier name and the earlier names of its fields, which stay until 1.0."""
    return StreamLimits(**{_EARLIER.get(name, name): value for name, value in values.items()})


class XdsServer:
    """Serves a store's snapshots. Without `credentials` it uses plain text, for loopback and local sockets.

    Without `secrets_anywhere`, it sends secrets only over TLS, local sockets and loopback. Only clients on this
    machine can read client status, unless `status_anywhere`, because it shows the configuration of every group. At
    most `first_at_once` clients get their first configuration at the same time, so that a fleet that reconnects costs
    bounded memory. Reports of load (LRS) go to `load_reports`; without it, no Envoy is asked for them.
    """

    def __init__(
        self,
        store: Store,
        *,
        group_of: GroupOf = one_group,
        limits: StreamLimits | None = None,
        max_streams: int = 10_000,
        first_at_once: int = 100,
        secrets_anywhere: bool = False,
        status_anywhere: bool = False,
        credentials: grpc.ServerCredentials | None = None,
        load_reports: LoadReports | None = None,
        channel_options: Sequence[tuple[str, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.services = Services(
            store,
            group_of=group_of,
            limits=limits,
            max_streams=max_streams,
            first_at_once=first_at_once,
            secrets_anywhere=secrets_anywhere,
            clock=clock,
        )
        self._credentials, self._group_of = credentials, group_of
        self._load_reports = LoadReports() if load_reports is None else load_reports
        self._status_anywhere = status_anywhere
        self._options = [*_waiting(max_streams), *(options() if channel_options is None else channel_options)]
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined] # the stubs lack it

    async def start(self, address: str) -> int:
        """Listen on ``host:port`` or ``unix:/path`` and serve. Returns the port.

        Raises OSError if the address is in use.
        """
        server = grpc.aio.server(options=self._options)
        self.services.attach(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._load_reports.attach(server, self._group_of)
        csds.ClientStatus(self.services, anywhere=self._status_anywhere).attach(server)
        names = (ADS, *SINGLE, csds.NAME, lrs.NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        port = self._bind(server, address)
        await server.start()
        self._server = server
        for name in ("", ADS, *SINGLE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    def _bind(self, server: grpc.aio.Server, address: str) -> int:
        try:
            if self._credentials is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, self._credentials)
        except RuntimeError:
            raise OSError(
                f"cannot listen on {address}: it is in use, or not an address of this machine"
            ) from None

    async def stop(self, grace: float | None = None) -> None:
        """Stop serving. Streams that are still open after `grace` seconds are closed (None: at once)."""
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace)
            self._server = None
