"""REST to gRPC: the gateway's route beside a hand-written Envoy with nothing but its transcoder.

Both Envoys have one worker and the same gRPC service, and take turns. What counts is the CPU time of Envoy for each
request, because load, service and Envoy share the processors.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load import Measured, get, measure
from benchmarks.proxy import static
from benchmarks.tables import HEADS, row, show
from filters.unary import UnaryMethod
from tests.support.envoy import Envoy, for_this_envoy
from tests.support.folder import compiled, filled, write
from tests.support.grpc_shop import DESCRIPTORS, PROTO, Book
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.translate.readable import plain
from xds_server.translate.static import bootstrap
from xds_server.unary_server.server import UnaryServer

ROUNDS, SECONDS = 5, 2.0
BOOK = "/v1/shelves/1/books/2"
ANSWER = Book(
    name="shelves/1/books/2", title="x" * 100, pages=300, price=9.5, tags=["a", "b"]
).SerializeToString()
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {shop: {endpoints: ["127.0.0.1:$shop"], protocol: grpc}}
routes:
  shop: {path: /v1/*, upstream: shop, policies: {grpc_transcoding: {protos: [shop.proto]}}}
  fast: {path: /fast/*, upstream: shop, policies: {grpc_transcoding: {protos: [shop.proto], prefix: /fast, trailing_metadata: false}}}
"""


def main() -> None:
    """Print the table."""
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder, _proxies(Path(folder)) as (ours, theirs):
        for name, request in {"GET": _get, "PATCH with 1 KB of JSON": _patch}.items():
            ways = {
                "hand-written Envoy": (theirs, request("")),
                "the gateway": (ours, request("")),
                "without trailing_metadata": (ours, request("/fast")),
            }
            found: dict[str, list[Measured]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, (proxy, sent) in ways.items():
                    found[way].append(measure(proxy.port, [sent], proxy.process, seconds=SECONDS))
            used = {
                way: statistics.median(one.cpu_microseconds for one in some) for way, some in found.items()
            }
            rates = {way: statistics.median(one.rate for one in some) for way, some in found.items()}
            bare, *others = ways
            rows.append((f"{name}, {bare}", f"{used[bare]:.0f} µs, {rates[bare]:,.0f}/s", "", ""))
            for way in others:
                rows.append((f"{name}, {way}", f"{used[way]:.0f} µs, {rates[way]:,.0f}/s", "", ""))
                rows.append(
                    row(f"{name}, {way}: share of CPU time", used[bare] / used[way], 0.95, "", least=True)
                )
    show("REST to gRPC: CPU time of Envoy for each request, and requests by one worker", HEADS, rows)


def _get(prefix: str) -> bytes:
    return get(f"{prefix}{BOOK}")


def _patch(prefix: str) -> bytes:
    body = b'{"title":"' + b"x" * 950 + b'"}'
    head = f"PATCH {prefix}{BOOK} HTTP/1.1\r\nhost: b\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body


class _Proxy:
    """An Envoy and the port of its listener."""

    def __init__(self, envoy: Envoy, port: int) -> None:
        self.envoy, self.port = envoy, port

    @property
    def process(self) -> int:
        """The id of the process."""
        assert self.envoy.process is not None
        return self.envoy.process.pid


@contextmanager
def _proxies(folder: Path) -> Iterator[tuple[_Proxy, _Proxy]]:
    shop, port, bare = free_port(), free_port(), free_port()
    write(folder / "gateway", {"shop.proto": PROTO.read_bytes()}, gateway=filled(YAML, port=port, shop=shop))
    ours = plain(bootstrap(for_this_envoy(compiled(folder / "gateway").snapshot)))
    with _service(shop), Envoy(ours, folder) as own, Envoy(_hand_written(bare, shop), folder) as other:
        own.ready()
        other.ready()
        yield _Proxy(own, port), _Proxy(other, bare)


def _hand_written(port: int, shop: int) -> dict[str, Any]:
    """The smallest bootstrap with a transcoder, with the settings that each of its users needs."""
    result = static(port, [{"match": {"prefix": "/v1/"}, "route": {"cluster": "users"}}], shop)
    manager = result["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor_bin": base64.b64encode(DESCRIPTORS).decode(),
        "services": ["shop.v1.Shop"],
        "match_incoming_request_route": True,
        "convert_grpc_status": True,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
    }
    manager["http_filters"].insert(0, {"name": "transcoder", "typed_config": config})
    options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    result["static_resources"]["clusters"][0]["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": options,
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    return result


@contextmanager
def _service(port: int) -> Iterator[None]:
    """The service in a process of its own."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.transcoding", str(port)]) as process:
        try:
            wait_for(lambda: _open(port), "the service")
            yield
        finally:
            process.terminate()


def _open(port: int) -> bool:
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), 1)):
        return True


def _serve(port: int) -> None:
    async def run() -> None:
        methods = [
            UnaryMethod(path=f"/shop.v1.Shop/{name}", parse=bytes, call=lambda _: ANSWER, serialize=bytes)
            for name in ("GetBook", "UpdateBook")
        ]
        await UnaryServer(methods).start(f"127.0.0.1:{port}")
        await asyncio.Event().wait()

    uvloop.run(run())


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
