"""A receiver of OpenTelemetry's protocol (OTLP 1) for tests: spans and logs over gRPC, spans over HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2

from tests.support.ports import free_port
from tests.support.wait import wait_for

_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": trace_service_pb2.ExportTraceServiceRequest,
    "opentelemetry.proto.collector.logs.v1.LogsService": logs_service_pb2.ExportLogsServiceRequest,
}


class Span(NamedTuple):
    """One span. Identifiers are hexadecimal."""

    name: str
    trace: str
    span: str
    parent: str
    service: str
    attributes: dict[str, str]
    resource: dict[str, str]


class Collector:
    """Receives until its end. Use as a context manager.

    `address` speaks gRPC and `http_address` HTTP. While `held` is set, calls over gRPC wait.
    """

    def __init__(self, port: int | None = None) -> None:
        self.address = f"127.0.0.1:{port or free_port()}"
        self.spans: list[Span] = []
        self.logs: list[dict[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                collector._spans(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if "content-length" in self.headers:
                    return self.rfile.read(int(self.headers["content-length"]))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http_address = f"127.0.0.1:{self._http.server_address[1]}"
        self._server: grpc.Server | None = None

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self.stop()
        self._http.shutdown()
        self._http.server_close()

    def start(self) -> None:
        """Listen for gRPC."""
        self._server = grpc.server(ThreadPoolExecutor(8))
        for service, request in _SERVICES.items():
            method = grpc.unary_unary_rpc_method_handler(
                self._export, request_deserializer=request.FromString, response_serializer=bytes
            )
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {"Export": method}),)
            )
        assert self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """Listen for gRPC no more."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def until_spans(self, count: int) -> list[Span]:
        """The spans, as soon as there are so many."""
        return wait_for(lambda: self.spans if len(self.spans) >= count else None, f"{count} spans") or []

    def until_logs(self, count: int) -> list[dict[str, str]]:
        """The log records, as soon as there are so many."""
        return wait_for(lambda: self.logs if len(self.logs) >= count else None, f"{count} records") or []

    def _export(self, request: Any, _context: grpc.ServicerContext) -> bytes:
        self.open.wait()
        if isinstance(request, logs_service_pb2.ExportLogsServiceRequest):
            for resource in request.resource_logs:
                for scope in resource.instrumentation_library_logs:  # the older name of scope_logs
                    self.logs += [_attributes(record.attributes) for record in scope.logs]
        else:
            self._spans(request)
        return b""

    def _spans(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            known = _attributes(resource.resource.attributes)
            for scope in resource.instrumentation_library_spans:  # the older name of scope_spans
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            name=span.name,
                            trace=span.trace_id.hex(),
                            span=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            service=known.get("service.name", ""),
                            attributes=_attributes(span.attributes),
                            resource=known,
                        )
                    )


def _attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: common_pb2.AnyValue) -> str:
    kind = value.WhichOneof("value")
    return "" if kind is None else str(getattr(value, kind))
