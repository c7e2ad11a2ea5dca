"""Services on a gRPC server: unary methods, and the health service that says when the rules are here."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from filters.rules import Service
from filters.unary import RpcError, UnaryMethod

log = logging.getLogger(__name__)

HEALTH = "grpc.health.v1.Health"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OPTIONS = [
    ("grpc.so_reuseport", 1),
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]


class PolicyServer:
    """Carries services on grpcio. Unhealthy, and still answering, until `healthy` is set.

    `busy` is the number of requests under way.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        self.healthy = False
        self.busy = 0
        self._services = services
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> str:
        """Listen on ``HOST:PORT``, which other processes may share, or ``unix:/PATH``. Raises OSError."""
        server = grpc.aio.server(options=_OPTIONS)
        for name, methods in self._mounted():
            server.add_generic_rpc_handlers((self._handlers(name, methods),))
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        await server.start()
        self._server = server
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def stop(self, grace: float) -> None:
        """Take no more requests, finish those under way for at most `grace` seconds, and close the services."""
        self.healthy = False
        if self._server is not None:
            await self._server.stop(grace)
        for service in self._services:
            service.close()

    def _mounted(self) -> list[tuple[str, Sequence[UnaryMethod]]]:
        return [*((one.name, one.methods) for one in self._services), (HEALTH, (self._health(),))]

    def _handlers(self, name: str, methods: Sequence[UnaryMethod]) -> grpc.GenericRpcHandler[Any, Any]:
        handlers = {
            one.path.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(
                self._behaviour(one), request_deserializer=one.parse, response_serializer=_serializer(one)
            )
            for one in methods
        }
        return grpc.method_handlers_generic_handler(name, handlers)

    def _behaviour(self, method: UnaryMethod) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self.busy += 1
            try:
                response = method.call(request)
                return await response if inspect.isawaitable(response) else response
            except RpcError as error:
                await context.abort(_CODES[error.code], error.message)
            except Exception:
                log.exception("failed in %s", method.path)
                await context.abort(grpc.StatusCode.INTERNAL, "the service failed")
            finally:
                self.busy -= 1

        return call

    def _health(self) -> UnaryMethod:
        known = {"", HEALTH, *(one.name for one in self._services)}
        status = health_pb2.HealthCheckResponse

        def check(request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
            if request.service not in known:
                raise RpcError(grpc.StatusCode.NOT_FOUND.value[0], "no such service")
            return status(status=status.SERVING if self.healthy else status.NOT_SERVING)

        return UnaryMethod(
            path=f"/{HEALTH}/Check",
            parse=health_pb2.HealthCheckRequest.FromString,
            call=check,
            serialize=status.SerializeToString,
        )


def _serializer(method: UnaryMethod) -> Callable[[Any], bytes]:
    return lambda response: response if isinstance(response, bytes) else method.serialize(response)
