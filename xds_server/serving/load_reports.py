"""The load reporting service (LRS): Envoys report the requests of each cluster to the control plane.

An Envoy sends nothing until the first response, which this server gives when `request` has said an interval. So Envoys
with LRS in their bootstrap cost one idle stream while nothing needs their reports.

https://github.com/envoyproxy/envoy/blob/main/api/envoy/service/load_stats/v3/lrs.proto
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import isawaitable
from typing import Any

import grpc
import grpc.aio
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.message import DecodeError

from xds_server.discovery.node import Node
from xds_server.serving.session import Context, GroupOf, NodeRejected, peer_of

log = logging.getLogger(__name__)

NAME = lrs_pb2.DESCRIPTOR.services_by_name["LoadReportingService"].full_name
_NEVER = timedelta(hours=1)
"""The interval that Envoys get if nothing needs reports any more. They then report no cluster."""
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined] # the stubs lack it


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """The requests of an Envoy to its clusters in the last `seconds`. Those with a 5xx status count as errors."""

    node: str
    group: str
    requests: int
    errors: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReportLimits:
    """The limits of clients that are not proved yet, for each address of a client: at most `unproved` streams, and from
    `trusted` ones on, the next client is proved before it may wait. `first_request` is in seconds: it is the time for the first
    message, and, if it is longer than five intervals, for the first report.
    """

    first_request: float = 30.0
    trusted: int = 64
    unproved: int = 1000


class _Unproved:
    """A client that is not proved yet: it counts for its address, and must send something before a deadline."""

    def __init__(self, counts: Counter[str], address: str, deadline: asyncio.Timeout) -> None:
        self._counts, self._address, self._deadline = counts, address, deadline
        self._counted = True
        counts[address] += 1

    def must_send_within(self, seconds: float | None) -> None:
        """Set another deadline, None for none."""
        if self._counted:
            loop = asyncio.get_running_loop()
            self._deadline.reschedule(None if seconds is None else loop.time() + seconds)

    def proved(self) -> None:
        """The client belongs to a group, so it may wait."""
        self.must_send_within(None)
        self.ended()

    def ended(self) -> None:
        """Do not count the client any more."""
        if self._counted:
            self._counted = False
            self._counts[self._address] -= 1
            if not self._counts[self._address]:
                del self._counts[self._address]


class LoadReports:
    """Asks Envoys for reports, and gives each to the observers. All servers of a store share it.

    Clusters whose name begins with `ignored` are left out. Use it in the thread of the event loop.
    """

    def __init__(
        self,
        *observers: Callable[[LoadReport], None],
        ignored: str = "xds/",
        limits: LoadReportLimits | None = None,
    ) -> None:
        self._observers = list(observers)
        self._ignored = ignored
        self._interval: float | None = None
        self._bells: set[asyncio.Event] = set()
        self._limits = limits or LoadReportLimits()
        self._unproved: Counter[str] = Counter()
        """The streams of clients that are not proved yet, by address."""

    def observe(self, observer: Callable[[LoadReport], None]) -> None:
        """Call one more observer from now on."""
        self._observers.append(observer)

    def request(self, interval: float | None) -> None:
        """Let Envoys report every `interval` seconds; None ends that."""
        if interval != self._interval:
            self._interval = interval
            for bell in self._bells:
                bell.set()

    def attach(self, server: grpc.aio.Server, group_of: GroupOf) -> None:
        """Add the service to a server."""

        async def serve(_requests: object, context: Context) -> None:
            await self._serve(context, group_of)

        handler = grpc.stream_stream_rpc_method_handler(
            serve, response_serializer=lrs_pb2.LoadStatsResponse.SerializeToString
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(NAME, {"StreamLoadStats": handler}),)
        )

    async def _serve(self, context: Context, group_of: GroupOf) -> None:
        """Serve one stream. A client is proved with its first report, which none is asked for while nothing needs it; if there
        are many such clients at an address, the next one is proved before it may wait."""
        address, limits = _address(context), self._limits
        if self._unproved[address] >= limits.unproved:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"this server has a limit of {limits.unproved} load report streams at an address that have reported nothing",
            )
        deadline, group = asyncio.timeout(limits.first_request), None
        client = _Unproved(self._unproved, address, deadline)
        try:
            async with deadline:
                node = await _first_node(context)
                if node is None:
                    return
                client.must_send_within(None)
                if self._unproved[address] > limits.trusted:
                    group = await _group(node, context, group_of)
                    client.proved()
                async with self._asking(context, client):
                    while (body := await context.read()) is not _END:
                        if group is None:  # only now, because a group can cost a request to another server
                            client.must_send_within(None)
                            group = await _group(node, context, group_of)
                            client.proved()
                        self._take(node, group, _parsed(body))
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the client sends nothing")
        finally:
            client.ended()

    @asynccontextmanager
    async def _asking(self, context: Context, client: _Unproved) -> AsyncIterator[None]:
        """Ask a client for reports while this context lasts."""
        bell = asyncio.Event()
        self._bells.add(bell)
        writing = asyncio.create_task(self._write(context, bell, client))
        try:
            yield
        finally:
            writing.cancel()
            self._bells.discard(bell)

    async def _write(self, context: Context, bell: asyncio.Event, client: _Unproved) -> None:
        """Say at which interval reports are needed."""
        asked = None
        while True:
            if self._interval != asked:
                asked = self._interval
                response = lrs_pb2.LoadStatsResponse(send_all_clusters=asked is not None)
                response.load_reporting_interval.FromTimedelta(
                    _NEVER if asked is None else timedelta(seconds=asked)
                )
                await context.write(response)
                client.must_send_within(None if asked is None else max(self._limits.first_request, 5 * asked))
            await bell.wait()
            bell.clear()

    def _take(self, node: Node, group: str, request: lrs_pb2.LoadStatsRequest) -> None:
        clusters = [one for one in request.cluster_stats if not one.cluster_name.startswith(self._ignored)]
        localities = [one for cluster in clusters for one in cluster.upstream_locality_stats]
        good = sum(one.total_successful_requests for one in localities)
        bad = sum(one.total_error_requests for one in localities)
        intervals = [one.load_report_interval.ToTimedelta().total_seconds() for one in clusters]
        report = LoadReport(
            node=node.id,
            group=group,
            requests=good + bad,
            errors=bad,
            seconds=max(intervals, default=self._interval or 0.0),
        )
        for observer in self._observers:
            observer(report)


def _address(context: Context) -> str:
    """Return the address of a client without its port."""
    kind, _, rest = peer_of(context).partition(":")
    return rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else kind


async def _first_node(context: Context) -> Node | None:
    """Return the node of the first message, None if the client ends the stream. The message, 60 KiB, is not kept."""
    first = await context.read()
    return None if first is _END else Node.of(_parsed(first).node)


async def _group(node: Node, context: Context, group_of: GroupOf) -> str:
    """Return the group of a node. End the stream if the node is rejected."""
    try:
        found = group_of(node, context)
        group = await found if isawaitable(found) else found
    except NodeRejected as rejection:
        await context.abort(rejection.status, rejection.message)
    if group is None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"node {node.id!r} belongs to no group")
    return group


def _parsed(body: bytes) -> lrs_pb2.LoadStatsRequest:
    """Return a request. Bytes that are none are an empty one, which reports nothing."""
    try:
        return lrs_pb2.LoadStatsRequest.FromString(body)
    except DecodeError as error:
        log.warning("a load report cannot be read error=%s", error)
        return lrs_pb2.LoadStatsRequest()
