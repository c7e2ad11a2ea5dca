"""A real xDS server in a thread of its own, and the bootstrap of an Envoy that asks it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

from xds_server.discovery.snapshot import Snapshot
from xds_server.gateway.model.regex import LARGEST
from xds_server.serving.events import Event
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Adapted, Store
from xds_server.translate import releases

T = TypeVar("T")


def _adapted(snapshot: Snapshot, release: str) -> Adapted:
    """What the Envoy of the tests can take, which may be the oldest."""
    return releases.adapted(snapshot, release)[0], ()


class XdsThread:
    """An XdsServer on a free port (or `address`) with its own event loop. Use as a context manager.

    `events` has everything that happened. All access to the store goes through `run`, into that loop.
    """

    def __init__(self, address: str = "127.0.0.1:0", store: Store | None = None, **options: Any) -> None:
        self.store = store or Store(adapt=_adapted, release_of=lambda _group, node: node.release)
        self.events: list[Event] = []
        self.store.observe(self.events.append)
        self.port = 0
        self.server: XdsServer
        self._address = address
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._await(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._await(self.server.stop(None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        self.server = XdsServer(self.store, **self._options)
        return await self.server.start(self._address)

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def kill(self) -> None:
        """Cut every connection and listen no more."""
        self._await(self.server.stop(0))

    def run(self, step: Callable[[], T]) -> T:
        """Call something in the server's loop."""

        async def inside() -> T:
            return step()

        result: T = self._await(inside())
        return result

    def call_soon(self, step: Callable[[], object]) -> None:
        """Call something in the server's loop, and do not wait for it."""
        self._loop.call_soon_threadsafe(step)

    def publish(self, snapshot: Snapshot, group: str = "") -> bool:
        return self.run(lambda: self.store.publish(snapshot, group))

    def seen(self, kind: type[T]) -> list[T]:
        return [event for event in list(self.events) if isinstance(event, kind)]


_RUNTIME = {"re2.max_program_size.error_level": LARGEST}
"""As every bootstrap of the product has it."""


def bootstrap(*ports: int, delta: bool = True, node: str = "envoy-1") -> dict[str, Any]:
    """What an Envoy needs to ask the xDS servers on these ports over ADS, one after the other."""
    addresses = [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports]
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}]
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "5s", "timeout": "5s"}}
        },
    }
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "10s"}
    return {
        "node": {"id": node, "cluster": "test"},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _RUNTIME}]},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
                "set_node_on_first_message_only": True,
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                    "load_assignment": {"cluster_name": "xds", "endpoints": endpoints},
                }
            ]
        },
    }
