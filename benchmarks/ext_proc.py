"""The cost of processing in Python by gRPC server, all in one run, directly and through an Envoy.

Run ``python -m benchmarks ext_proc``. Each measurement takes SECONDS (3). It needs h2load (Debian: nghttp2-client).
h2load ends a stream together with its one message; Envoy ends it after the response. If wrk is installed, the processors
are also measured through an Envoy with one worker, beside the same route without.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from benchmarks.unary_server import Measured, h2load, wrk
from filters.processing.names import CHAIN
from filters.processing.service import NAME
from tests.support.policy_server import Stack
from tests.support.sockets import SocketServer
from tests.support.wait import wait_for

SIZE = 668
"""Bytes of a message with headers as Envoy sends it for a common request."""
PROCESSORS = """
import json

from filters.ext_proc import Processor, change


class Headers(Processor):
    async def request_headers(self, request):
        return change({"x-seen": request.headers.get("user-agent", "")}, remove=["x-secret"])


class Threaded(Processor):
    def request_headers(self, request):
        return change({"x-seen": request.headers.get("user-agent", "")}, remove=["x-secret"])


class Body(Processor):
    async def response_body(self, request, response, body):
        document = json.loads(body)
        document["seen"] = True
        return json.dumps(document).encode()
"""
SERVERS = {"ours": "native", "grpcio, asyncio + uvloop": "grpcio"}
ROUTES = {
    "no processor": "/plain",
    "headers, a coroutine": "/headers",
    "headers, a function in a thread": "/threaded",
    "response of 1 KB, a coroutine": "/body",
}
COROUTINE, FUNCTION = (
    "the headers of a request, a coroutine",
    "the headers of a request, a function in a thread",
)
DIRECT = {COROUTINE: "Headers", FUNCTION: "Threaded"}


def _gateway(port: int, backend: str) -> str:
    return f"""
listeners: {{http: {{port: {port}}}}}
upstreams: {{backend: {{endpoints: ["{backend}"]}}}}
routes:
  plain: {{path: /plain, upstream: backend}}
  headers: {{path: /headers, upstream: backend, policies: {{ext_proc: {{python: "p.py:Headers", timeout: 1s}}}}}}
  threaded: {{path: /threaded, upstream: backend, policies: {{ext_proc: {{python: "p.py:Threaded", timeout: 1s}}}}}}
  body: {{path: /body, upstream: backend, policies: {{ext_proc: {{python: "p.py:Body", timeout: 1s}}}}}}
"""


def _message() -> bytes:
    message = pb.ProcessingRequest()
    headers = message.request_headers.headers.headers
    pseudo = {":method": "GET", ":path": "/headers", ":authority": "api.example.com", ":scheme": "https"}
    for name, value in {**pseudo, "user-agent": "benchmark", "accept": "*/*", "x-secret": "s"}.items():
        headers.add(key=name, raw_value=value.encode())
    cookie = headers.add(key="cookie")
    cookie.raw_value = b"x" * (SIZE - len(message.SerializeToString()) - 3)
    return message.SerializeToString()


def _chain(name: str) -> str:
    member = ["python_processor", f"p.py:{name}", ["request_headers"], 1.0, 1 << 20, False]
    return f"{CHAIN}: " + json.dumps({"chain": [member], "path": "", "route": "headers"})


@contextmanager
def _backend() -> Iterator[str]:
    """Serve 1 KB of JSON to requests, on kept connections."""
    body = json.dumps({"text": "x" * 1000}).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)

    def serve(connection: object) -> None:
        waiting = b""
        while part := connection.recv(65536):  # type: ignore[attr-defined]
            waiting += part
            count = waiting.count(b"\r\n\r\n")
            waiting = waiting.rpartition(b"\r\n\r\n")[2] if count else waiting
            connection.sendall((answer + body) * count)  # type: ignore[attr-defined]

    with SocketServer(serve) as server:
        yield server.address


@contextmanager
def _stack(kind: str, backend: str) -> Iterator[Stack]:
    with ExitStack() as around:
        folder = Path(around.enter_context(tempfile.TemporaryDirectory()))
        (folder / "p.py").write_text(PROCESSORS)
        stack = Stack(folder, tcp=True, arguments=("--grpc", kind))
        (folder / "gateway.yaml").write_text(_gateway(stack.listener, backend))
        around.enter_context(stack)
        for path in ROUTES.values():
            wait_for(lambda path=path: stack.get(path).status_code == 200, "the processors")
        yield stack


def _measured(stack: Stack, seconds: float) -> tuple[dict[str, Measured], dict[str, Measured]]:
    assert stack.policy_server.process is not None
    process = stack.policy_server.process.pid
    direct = {
        case: h2load(stack.socket, f"/{NAME}/Process", _message(), process, seconds, [_chain(name)])
        for case, name in DIRECT.items()
    }
    if shutil.which("wrk") is None:
        return direct, {}
    return direct, {route: wrk(stack.url + path, process, seconds) for route, path in ROUTES.items()}


def main() -> None:
    """Print a Markdown table for each case."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is needed (Debian: apt install nghttp2-client)")
    seconds = float(os.environ.get("SECONDS", "3"))
    found = {}
    with _backend() as backend:
        for name, kind in SERVERS.items():
            with _stack(kind, backend) as stack:
                found[name] = _measured(stack, seconds)
    for case in DIRECT:
        print(f"\n| {case} | calls/s | p50 | p99 | CPU of one |\n|---|---|---|---|---|")
        for name, (direct, _) in found.items():
            _row(name, direct[case])
    for name, (_, through) in found.items():
        if through:
            print(f"\n| through Envoy: {name} | requests/s | p50 | p99 | CPU of one |\n|---|---|---|---|---|")
            for route, one in through.items():
                _row(route, one)


def _row(name: str, one: Measured) -> None:
    print(
        f"| {name} | {one.rate:,.0f} | {one.p50 / 1e3:.1f} ms | {one.p99 / 1e3:.1f} ms | {one.cpu:.0f} µs |"
    )


if __name__ == "__main__":
    main()
