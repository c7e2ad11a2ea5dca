"""A gRPC server for a test: every method of every service, and health checking."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Echo(grpc.GenericRpcHandler):
    """Answers every method of every service by the method's name."""

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.release = threading.Event()

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler[Any, Any]:
        method = handler_call_details.method.rpartition("/")[2]
        unary: dict[str, Any] = {"Name": self._who, "Missing": self._missing, "Never": self._never}
        if method == "Chat":
            return grpc.stream_stream_rpc_method_handler(lambda messages, _: messages)
        if method == "Count":
            return grpc.unary_stream_rpc_method_handler(self._count)
        if method == "Unending":
            return grpc.unary_stream_rpc_method_handler(self._unending)
        return grpc.unary_unary_rpc_method_handler(unary.get(method, lambda message, _: message))

    def _who(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-served-by", self.name),))
        return self.name.encode()

    def _missing(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        raise AssertionError("abort raises")

    def _never(self, message: bytes, _: grpc.ServicerContext) -> bytes:
        self.release.wait(30)
        return message

    def _unending(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        self.release.wait(60)
        yield b"last"

    def _count(self, message: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(message)):
            yield str(number).encode()


class Service:
    """A gRPC server with `Echo` and health checking, for the service `shop`."""

    def __init__(self, name: str) -> None:
        self.echo, self.health = Echo(name), health.HealthServicer()
        self.well(True)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(self.echo,))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def well(self, well: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self.health.set("shop", status.SERVING if well else status.NOT_SERVING)

    @contextmanager
    def running(self) -> Iterator[Service]:
        self._server.start()
        try:
            yield self
        finally:
            self.echo.release.set()
            self._server.stop(None).wait()
