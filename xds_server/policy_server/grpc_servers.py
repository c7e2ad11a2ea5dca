"""The gRPC servers of the services' methods: our own server, or grpcio for comparison.

No other module depends on the choice.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import grpc
import grpc.aio

from filters.streaming import Session, StreamMethod
from filters.unary import RpcError, UnaryMethod, Undoable
from xds_server.unary_server.accepting import Shared
from xds_server.unary_server.events import ServerLimits
from xds_server.unary_server.server import UnaryServer

log = logging.getLogger(__name__)

Kind = Literal["native", "grpcio"]
MOST_STREAMS, MOST_BYTES, WINDOW = 100_000, 4 << 20, 64 << 20
"""Limits of a connection: concurrent requests, bytes of a request (Envoy sends at most 1 MiB of a body), bytes of all
incomplete requests."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OPTIONS = [
    ("grpc.so_reuseport", 1),
    ("grpc.max_concurrent_streams", MOST_STREAMS),
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]


class Carrier(Protocol):
    """A gRPC server of unary and streaming methods."""

    async def start(self, address: str | Shared) -> int:
        """Listen on ``HOST:PORT``, which others may share, ``unix:/PATH`` or a shared socket. Raises OSError."""
        ...

    async def stop(self, grace: float) -> None:
        """Accept no more requests, and finish those in progress for at most `grace` seconds."""
        ...


def carrier(kind: Kind, methods: Sequence[UnaryMethod], streams: Sequence[StreamMethod]) -> Carrier:
    """Return a carrier of these methods."""
    return Native(methods, streams) if kind == "native" else Grpcio(methods, streams)


class Native:
    """Our own server."""

    def __init__(self, methods: Sequence[UnaryMethod], streams: Sequence[StreamMethod]) -> None:
        limits = ServerLimits(max_message=MOST_BYTES, max_streams=MOST_STREAMS, window=WINDOW)
        self._server = UnaryServer(methods, streams, limits=limits)

    async def start(self, address: str | Shared) -> int:
        reuse = isinstance(address, str) and not address.startswith("unix:")
        return await self._server.start(address, reuse_port=reuse)

    async def stop(self, grace: float) -> None:
        await self._server.drain(grace)


class Grpcio:
    """grpcio's server on asyncio."""

    def __init__(self, methods: Sequence[UnaryMethod], streams: Sequence[StreamMethod]) -> None:
        self._methods = methods
        self._streams = streams
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str | Shared) -> int:
        if isinstance(address, Shared):
            raise OSError("grpcio does not accept a shared socket")
        server = grpc.aio.server(options=_OPTIONS)
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        methods = [(method.path, _handler(method)) for method in self._methods]
        streams = [(method.path, _stream_handler(method)) for method in self._streams]
        for path, handler in (*methods, *streams):
            _, service, name = path.split("/")
            services.setdefault(service, {})[name] = handler
        handlers = [grpc.method_handlers_generic_handler(name, own) for name, own in services.items()]
        server.add_generic_rpc_handlers(tuple(handlers))
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await server.start()
        self._server = server
        return port

    async def stop(self, grace: float) -> None:
        if self._server is not None:
            await self._server.stop(grace)


def _handler(method: UnaryMethod) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        _behaviour(method), request_deserializer=method.parse, response_serializer=_serializer(method)
    )


def _stream_handler(method: StreamMethod) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        session: Session | None = None
        ended = False
        try:
            session = method.open(_metadata(context))
            async for message in requests:
                response = await _awaited(session.receive(message))
                if response is not None:
                    yield response
            response = await _awaited(session.end())
            ended = True
            if response is not None:
                yield response
        except RpcError as error:
            await context.abort(_CODES[error.code], error.message)
        except Exception:
            log.exception("method failed; the client gets UNKNOWN path=%s", method.path)
            await context.abort(grpc.StatusCode.UNKNOWN, "the method failed")
        finally:
            if session is not None and not ended:
                session.cancel()

    return grpc.stream_stream_rpc_method_handler(call)


def _metadata(context: grpc.aio.ServicerContext[Any, Any]) -> Mapping[bytes, bytes]:
    pairs = context.invocation_metadata() or ()
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in pairs}


async def _awaited(response: bytes | Awaitable[bytes | None] | None) -> bytes | None:
    return response if response is None or isinstance(response, bytes) else await response


def _behaviour(method: UnaryMethod) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            response = method.call(request)
            if inspect.isawaitable(response):
                response = await response
            if isinstance(response, Undoable):
                context.add_done_callback(_undoing(response))
                return response.response
            return response
        except RpcError as error:
            await context.abort(_CODES[error.code], error.message)
        except Exception:
            log.exception("method failed; the client gets UNKNOWN path=%s", method.path)
            await context.abort(grpc.StatusCode.UNKNOWN, "the method failed")

    return call


def _undoing(response: Undoable) -> Any:
    return lambda ended: response.undo() if ended.cancelled() else None


def _serializer(method: UnaryMethod) -> Callable[[Any], bytes]:
    return lambda response: response if isinstance(response, bytes) else method.serialize(response)
