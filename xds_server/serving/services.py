"""The discovery services, ADS and one per type, each in both protocols, for any grpc.aio server."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import ads_pb2

from xds_server.discovery import types
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.stream import Protocol, Stream, StreamLimits
from xds_server.discovery.types import ResourceType
from xds_server.serving.first_config_slots import Slots
from xds_server.serving.session import Context, GroupOf, Session
from xds_server.serving.store import Store

log = logging.getLogger(__name__)

_REPORT_AGAIN = 60.0
"""Seconds between two lines in the log about clients that are rejected because there are too many."""
ADS = ads_pb2.DESCRIPTOR.services_by_name["AggregatedDiscoveryService"].full_name

SINGLE: dict[str, tuple[ResourceType, str]] = {
    "envoy.service.cluster.v3.ClusterDiscoveryService": (types.CLUSTER, "Clusters"),
    "envoy.service.endpoint.v3.EndpointDiscoveryService": (types.ENDPOINT, "Endpoints"),
    "envoy.service.secret.v3.SecretDiscoveryService": (types.SECRET, "Secrets"),
    "envoy.service.extension.v3.ExtensionConfigDiscoveryService": (
        types.EXTENSION_CONFIG,
        "ExtensionConfigs",
    ),
    "envoy.service.listener.v3.ListenerDiscoveryService": (types.LISTENER, "Listeners"),
    "envoy.service.route.v3.ScopedRoutesDiscoveryService": (types.SCOPED_ROUTE, "ScopedRoutes"),
    "envoy.service.route.v3.RouteDiscoveryService": (types.ROUTE, "Routes"),
    "envoy.service.runtime.v3.RuntimeDiscoveryService": (types.RUNTIME, "Runtime"),
}
"""The services of one type each, with the word in the names of their methods."""


@dataclass(frozen=True, slots=True)
class ClientState:
    """The state of an open stream, by its number. It reads the stream itself, so use it in the thread of the event loop
    only."""

    number: int
    node: str
    group: str
    _served: Snapshot
    _stream: Stream

    @property
    def current(self) -> bool:
        """True if the client has accepted everything that it subscribes to, in the served version."""
        return self._stream.has_all(self._served)

    @property
    def lacks(self) -> tuple[ResourceType, ...]:
        """The types of which it has not."""
        return self._stream.lacks(self._served)

    def acknowledged(self, type_: ResourceType, names: Iterable[str]) -> bool | None:
        """Return True if the client has accepted these resources in the served version.

        Returns None if the client subscribes to none of them.
        """
        watch = self._stream.watches.get(type_)
        if watch is None:
            return None
        items = self._served[type_]
        wanted = [items[name] for name in names if name in items and watch.subscription.wants(name)]
        return (
            all(watch.acknowledged(resource.name, resource.version) for resource in wanted)
            if wanted
            else None
        )


def one_group(_node: Node, _context: Context) -> str:
    """Return the group "" for every client."""
    return ""


class Services:
    """All discovery services over one store. `sessions` are the open streams by number.

    At most `first_at_once` clients get their first configuration at the same time, until they acknowledge it.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions: dict[int, Session] = {}
        self._store = store
        self._group_of = group_of
        self._limits = limits or StreamLimits()
        self._max_streams = max_streams
        self._slots = Slots(first_at_once, self._limits.ack_timeout)
        self._secrets_anywhere = secrets_anywhere
        self._clock = clock
        self._full_at: float | None = None

    def attach(self, server: grpc.aio.Server) -> None:
        """Add every service to a server."""
        server.add_generic_rpc_handlers((self._service(ADS, None, "AggregatedResources"),))
        for name, (type_, word) in SINGLE.items():
            server.add_generic_rpc_handlers((self._service(name, type_, word),))

    def clients(self) -> Iterator[ClientState]:
        """Yield the state of every open stream that has a snapshot."""
        for session in self.sessions.values():
            served = session.view()
            if served is not None:
                yield ClientState(session.number, session.node.id, session.group, served, session.stream)

    def reconnect(self, wrong: Callable[[str, Node], bool]) -> None:
        """Have clients connect again whose group is `wrong`, by the group and the node."""
        for session in self.sessions.values():
            if wrong(session.group, session.node):
                session.reconnect()

    def _report_full(self) -> None:
        """Log that clients are rejected, once a minute."""
        if self._full_at is None or self._clock() - self._full_at >= _REPORT_AGAIN:
            self._full_at = self._clock()
            log.warning(
                "rejected a client, because all streams are taken; its Envoy keeps what it has, or starts without a gateway "
                "max_streams=%d",
                self._max_streams,
            )

    def _service(self, name: str, only: ResourceType | None, word: str) -> grpc.GenericRpcHandler[Any, Any]:
        methods = {f"Stream{word}": Protocol.SOTW, f"Delta{word}": Protocol.DELTA}
        return grpc.method_handlers_generic_handler(
            name,
            {
                method: grpc.stream_stream_rpc_method_handler(self._serve(protocol, only))
                for method, protocol in methods.items()
            },
        )

    def _serve(self, protocol: Protocol, only: ResourceType | None) -> Callable[..., Awaitable[None]]:
        async def serve(_requests: object, context: Context) -> None:
            if len(self.sessions) >= self._max_streams:
                self._report_full()
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"this server has a limit of {self._max_streams} streams",
                )
            stream = Stream(protocol, only=only, limits=self._limits)
            session = Session(
                next(self._store.numbers),
                stream,
                self._store,
                self._group_of,
                self._clock,
                self._slots,
                self._secrets_anywhere,
            )
            self.sessions[session.number] = session
            try:
                await session.run(context)
            finally:
                del self.sessions[session.number]

        return serve
