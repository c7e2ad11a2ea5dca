"""Services on a gRPC server: their methods, and the health service that reports whether the rules have arrived."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from grpc_health.v1 import health_pb2

from filters.rules import Service
from filters.streaming import Session, StreamMethod
from filters.unary import Later, RpcError, UnaryMethod
from xds_server.policy_server.grpc_servers import Kind, carrier
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
        streams = [self._counted_stream(method) for service in services for method in service.streams]
        self._carrier = carrier(kind, [*methods, self._health()], streams)

    async def start(self, address: str, shared: Sequence[Shared] = ()) -> str:
        """Listen on ``HOST:PORT``, which other processes may share, or ``unix:/PATH``. Raises OSError.

        `shared` are sockets that are already bound to that address, and from which other processes accept too.
        """
        try:
            ports = [await self._carrier.start(one) for one in shared or (address,)]
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{ports[0]}"

    async def stop(self, grace: float) -> None:
        """Accept no more requests, finish those in progress for at most `grace` seconds, and close the services."""
        self.healthy = False
        await self._carrier.stop(grace)
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

    def _counted_stream(self, method: StreamMethod) -> StreamMethod:
        return dataclasses.replace(
            method, open=lambda metadata: _CountedSession(method.open(metadata), self._wait)
        )

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


class _CountedSession:
    """A session whose awaitables are counted by `wait`."""

    __slots__ = ("_wait", "cancel", "end", "session")

    def __init__(self, session: Session, wait: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
        self.session = session
        self.end = session.end
        self.cancel = session.cancel
        self._wait = wait

    def receive(self, message: bytes) -> bytes | Awaitable[bytes | None] | None:
        response = self.session.receive(message)
        return response if response is None or isinstance(response, bytes) else self._wait(response)
