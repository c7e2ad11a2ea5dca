"""Services on a gRPC server: their methods, and the health service that reports whether the rules have arrived."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Sequence
from typing import Any

from grpc_health.v1 import health_pb2

from filters.rules import Service
from filters.unary import Later, RpcError, UnaryMethod
from xds_server.policy_server.grpc_servers import Grpcio, Kind, carrier
from xds_server.unary_server.accepting import Shared

HEALTH = "grpc.health.v1.Health"
NOT_FOUND = 5
"""The gRPC status (grpc/doc/statuscodes.md)."""


class PolicyServer:
    """Serves services on a carrier. It reports itself unhealthy, and still responds, until `healthy` is set.

    `busy` is the number of requests in progress that were not decided at once.
    """

    def __init__(self, services: Sequence[Service], kind: Kind = "native") -> None:
        self.healthy = False
        self.busy = 0
        self._services = services
        methods = [self._counted(method) for service in services for method in service.methods]
        self._carrier = carrier(kind, [*methods, self._health()])
        streams = [method for service in services for method in service.streams]
        self._streams = Grpcio([self._health()], streams) if streams else None

    async def start(self, address: str, shared: Sequence[Shared] = ()) -> str:
        """Listen on ``HOST:PORT``, which other processes may share, or ``unix:/PATH``. Raises OSError.

        `shared` are sockets that are already bound to that address, and from which other processes accept too.
        """
        try:
            ports = [await self._carrier.start(one) for one in shared or (address,)]
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{ports[0]}"

    async def start_streams(self, address: str) -> int:
        """Listen for the streaming methods on ``HOST:PORT`` or ``unix:/PATH``. Returns the port. Raises OSError.

        They have their own address, because our own server supports unary methods only.
        """
        assert self._streams is not None, "a service has streams"
        return await self._streams.start(address)

    async def stop(self, grace: float) -> None:
        """Accept no more requests, finish those in progress for at most `grace` seconds, and close the services."""
        self.healthy = False
        carriers = [self._carrier] if self._streams is None else [self._carrier, self._streams]
        await asyncio.gather(*(running.stop(grace) for running in carriers))
        for service in self._services:
            closing = service.close()
            if closing is not None:
                await closing

    def _counted(self, method: UnaryMethod) -> UnaryMethod:
        inner = method.call

        def call(request: Any) -> Any:
            response = inner(request)
            if type(response) is Later:
                self.busy += 1
                response.future.add_done_callback(self._done)
                return response
            if type(response) is bytes or not hasattr(response, "__await__"):
                return response
            return self._wait(response)

        return dataclasses.replace(method, call=call)

    def _done(self, _future: asyncio.Future[Any]) -> None:
        self.busy -= 1

    async def _wait(self, response: Awaitable[Any]) -> Any:
        self.busy += 1
        try:
            return await response
        finally:
            self.busy -= 1

    def _health(self) -> UnaryMethod:
        known = {"", HEALTH, *(service.name for service in self._services)}
        status = health_pb2.HealthCheckResponse

        def check(request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
            if request.service not in known:
                raise RpcError(NOT_FOUND, "no such service")
            return status(status=status.SERVING if self.healthy else status.NOT_SERVING)

        return UnaryMethod(
            path=f"/{HEALTH}/Check",
            parse=health_pb2.HealthCheckRequest.FromString,
            call=check,
            serialize=status.SerializeToString,
        )
