"""Thousands of simulated Envoys in one process: the xDS part of Envoy, each on a connection of its own.

Each has a node id of its own and the node message of a real Envoy. It requests clusters, then what they refer to, then
listeners, then what those refer to; it acknowledges all of it, and connects again with its state and with Envoy's delays. With
`lrs` it also has the stream for load reports that our bootstrap gives an Envoy. It verifies what it gets:
a resource that it did not request, and a version that means two contents, are errors.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.load_stats.v3 import lrs_pb2

from benchmarks.discovery_responses import Held, Parser, Response
from benchmarks.grpc_connection import GrpcConnection, request_headers
from xds_server.discovery import types

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
BASE, MOST = 0.5, 30.0
"""Seconds: the delays of Envoy before it connects again are random below the first, then below twice as much, up to the last."""
LRS_DELAY = 5.0
"""Seconds until Envoy opens the stream for load reports again."""
PING = 30.0
"""Seconds between two pings of our bootstrap."""
CLUSTER, LISTENER = types.CLUSTER.url, types.LISTENER.url
WHOLE = frozenset(type_.url for type_ in types.TYPES if type_.whole)


@dataclass(slots=True, kw_only=True)
class Options:
    """What all Envoys of a process have in common."""

    ports: tuple[int, ...]
    """The control planes: an Envoy takes the next one each time that it connects, as behind a balancer."""
    delta: bool = True
    lrs: bool = True
    node: bytes = b""
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class Seen:
    """What the Envoys of a process have noted. Times are of the monotonic clock, which all processes share."""

    connected: dict[int, float] = field(default_factory=dict)
    complete: dict[int, float] = field(default_factory=dict)
    markers: dict[str, dict[int, float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    responses: int = 0
    resources: int = 0
    bytes: int = 0
    changed: Callable[[], None] = lambda: None


class SimulatedEnvoy:
    """One Envoy. Call `connect` once."""

    __slots__ = (
        "_ads",
        "_attempt",
        "_connection",
        "_number",
        "_of",
        "_port",
        "_timer",
        "held",
        "names",
        "stuck",
    )

    def __init__(self, number: int, of: Envoys) -> None:
        self._number, self._of = number, of
        self._attempt, self._port, self._ads = 0, number, 0
        self._connection: GrpcConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.stuck = False
        self.forget()

    def forget(self) -> None:
        """Have no state, as after a start."""
        self.held: dict[str, dict[str, Held]] = {CLUSTER: {}}
        self.names: dict[str, set[str]] = {CLUSTER: set()}

    async def connect(self) -> None:
        """Connect, or open the stream again if the connection is still there. If that fails, it is tried again later."""
        options, seen = self._of.options, self._of.seen
        seen.attempts += 1
        self._timer = None
        if self._connection is None:
            connection = GrpcConnection(self._received, self._ended)
            self._port += 1
            port = options.ports[self._port % len(options.ports)]
            name = "localhost" if options.tls else None
            try:
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, "127.0.0.1", port, ssl=options.tls, server_hostname=name
                )
            except OSError:
                self._ended(0, "cannot connect")
                return
            if connection.closing:
                return  # `_ended` is called
            self._connection = connection
            self._open_ads()
            self._report_load()
        elif not self._connection.closing:
            self._open_ads()

    def _node(self) -> base_pb2.Node:
        node = base_pb2.Node.FromString(self._of.options.node)
        node.id = f"envoy-{self._number}"
        return node

    def _open_ads(self) -> None:
        assert self._connection is not None
        self._ads = self._connection.open(self._of.ads)
        self._of.seen.connected[self._number] = time.monotonic()
        for at, url in enumerate(self.held):
            self._connection.send(self._ads, self._first(url, None if at else self._node()))
        self._of.seen.changed()

    def _report_load(self) -> None:
        """Open the stream for load reports, if there is a connection."""
        if self._of.options.lrs and self._connection is not None and not self._connection.closing:
            stream = self._connection.open(self._of.lrs)
            self._connection.send(stream, lrs_pb2.LoadStatsRequest(node=self._node()).SerializeToString())

    def disconnect(self) -> None:
        """End the connection for good."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for times in (self._of.seen.connected, self._of.seen.complete):
            times.pop(self._number, None)

    def read(self, reading: bool) -> None:
        """Go on reading, or stop, as a process that hangs."""
        self.stuck = not reading
        assert self._connection is not None
        assert self._connection.transport is not None
        (self._connection.transport.resume_reading if reading else self._connection.transport.pause_reading)()

    def ping(self) -> None:
        """Send a ping, if there is a connection."""
        if self._connection is not None and not self.stuck:
            self._connection.ping()

    def digest(self) -> int:
        """Return a number that is the same for Envoys that have the same resources."""
        return sum(one.digest for items in self.held.values() for one in items.values()) % (1 << 64)

    def _ended(self, stream: int, reason: str) -> None:
        seen, loop = self._of.seen, asyncio.get_running_loop()
        if not stream:
            self._connection = None
        elif stream != self._ads:
            seen.endings[f"load reports: {reason}"] += 1
            loop.call_later(LRS_DELAY, self._report_load)
            return
        seen.connected.pop(self._number, None)
        seen.endings[reason] += 1
        if self._timer is not None:
            return  # the stream has ended before its connection
        delay = random.random() * min(BASE * 2**self._attempt, MOST)
        self._attempt += 1
        self._timer = loop.call_later(delay, self._of.start, self)

    def _first(self, url: str, node: base_pb2.Node | None) -> bytes:
        """Return the first request for a type on a stream."""
        held = self.held.setdefault(url, {})
        names = sorted(self.names[url])
        request: Any
        if self._of.options.delta:
            versions = {one.name: one.version for one in held.values()}
            request = discovery_pb2.DeltaDiscoveryRequest(
                node=node, type_url=url, resource_names_subscribe=names, initial_resource_versions=versions
            )
        else:
            version = self._of.versions.get((self._number, url), "")
            request = discovery_pb2.DiscoveryRequest(
                node=node, type_url=url, resource_names=names, version_info=version
            )
        return bytes(request.SerializeToString())

    def _received(self, stream: int, message: bytes) -> None:
        if stream != self._ads:
            return  # the server asks for load reports
        self._attempt = 0
        response = self._of.parser.response(message)
        seen, url = self._of.seen, response.url
        seen.responses, seen.bytes = seen.responses + 1, seen.bytes + len(message)
        seen.resources += len(response.resources)
        held = self.held.setdefault(url, {})
        self._verify(response)
        if not self._of.options.delta and url in WHOLE:
            held.clear()
        for one in response.resources:
            held[one.name] = one
        for name in response.removed:
            held.pop(name, None)
        self._acknowledge(response)
        if url in (CLUSTER, LISTENER):
            self._subscribe()
        self._note(response.resources)

    def _verify(self, response: Response) -> None:
        errors, url = self._of.seen.errors, response.url
        if url not in self.names:
            errors[f"a response of {url}, which was not requested"] += 1
        elif url not in WHOLE and any(one.name not in self.names[url] for one in response.resources):
            errors[f"a resource of {url} that was not requested"] += 1
        if any(name not in self.held.get(url, {}) for name in response.removed):
            errors[f"a resource of {url} was removed that the Envoy never had"] += 1

    def _acknowledge(self, response: Response) -> None:
        assert self._connection is not None
        request: Any
        if self._of.options.delta:
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=response.url, response_nonce=response.nonce
            )
        else:
            self._of.versions[self._number, response.url] = response.version
            request = discovery_pb2.DiscoveryRequest(
                type_url=response.url,
                response_nonce=response.nonce,
                version_info=response.version,
                resource_names=sorted(self.names.get(response.url, ())),
            )
        self._connection.send(self._ads, request.SerializeToString())

    def _needs(self) -> dict[str, set[str]]:
        needs: dict[str, set[str]] = {}
        for url in (CLUSTER, LISTENER):
            for one in self.held.get(url, {}).values():
                for needed, name in one.needs:
                    needs.setdefault(needed, set()).add(name)
        return needs

    def _subscribe(self) -> None:
        """Request what clusters and listeners refer to now."""
        assert self._connection is not None
        needs = self._needs()
        for url in dict.fromkeys((*needs, *self.names)):
            wanted, before = needs.get(url, set()), self.names.get(url)
            if url in WHOLE or wanted == before:
                continue
            self.names[url] = wanted
            for name in [name for name in self.held.get(url, {}) if name not in wanted]:
                del self.held[url][name]
            if before is None or not self._of.options.delta:
                self._connection.send(self._ads, self._first(url, None))
                continue
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=url,
                resource_names_subscribe=sorted(wanted - before),
                resource_names_unsubscribe=sorted(before - wanted),
            )
            self._connection.send(self._ads, request.SerializeToString())

    def _note(self, resources: Iterable[Held]) -> None:
        """Note what the Envoy has now. It begins with listeners if it has all that its clusters refer to."""
        seen, now = self._of.seen, time.monotonic()
        for marker in {marker for one in resources for marker in one.markers}:
            seen.markers.setdefault(marker, {}).setdefault(self._number, now)
        if self._number not in seen.complete and all(
            names <= self.held.get(url, {}).keys() for url, names in self.names.items()
        ):
            if LISTENER not in self.names:
                assert self._connection is not None
                self.names[LISTENER] = set()
                self._connection.send(self._ads, self._first(LISTENER, None))
            elif self.held.get(LISTENER):
                seen.complete[self._number] = now
        seen.changed()


class Envoys:
    """All simulated Envoys of a process."""

    def __init__(self, options: Options, first: int) -> None:
        self.options, self.first = options, first
        self.seen = Seen()
        self.parser = Parser(options.delta, self.seen.errors)
        self.versions: dict[tuple[int, str], str] = {}
        """The version of each type that a state-of-the-world client has accepted."""
        method = "DeltaAggregatedResources" if options.delta else "StreamAggregatedResources"
        self.ads, self.lrs = request_headers(f"{ADS}/{method}"), request_headers(LRS)
        self.members: list[SimulatedEnvoy] = []
        self._tasks = set[asyncio.Task[None]]()

    def add(self, count: int) -> None:
        """Start so many more Envoys at once."""
        for _ in range(count):
            member = SimulatedEnvoy(self.first + len(self.members), self)
            self.members.append(member)
            self.start(member)

    def start(self, member: SimulatedEnvoy) -> None:
        """Let an Envoy connect."""
        task = asyncio.get_running_loop().create_task(member.connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def restart(self) -> None:
        """Let all Envoys start again at once, without their state."""
        self.versions.clear()
        for member in self.members:
            member.disconnect()
            member.forget()
            self.start(member)

    async def ping(self) -> None:
        """Send the pings of all Envoys, spread over the time."""
        while True:
            before = time.monotonic()
            for at, member in enumerate(self.members):
                member.ping()
                if at % 50 == 49:
                    await asyncio.sleep(PING * 50 / len(self.members))
            await asyncio.sleep(max(1.0, PING - (time.monotonic() - before)))
