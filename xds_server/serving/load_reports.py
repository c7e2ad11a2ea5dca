"""The load reporting service (LRS): Envoys report the requests of each cluster to the control plane.

An Envoy sends nothing until the first response, which this server gives when `request` has said an interval. So Envoys
with LRS in their bootstrap cost one idle stream while nothing needs their reports.

https://github.com/envoyproxy/envoy/blob/main/api/envoy/service/load_stats/v3/lrs.proto
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from inspect import isawaitable
from typing import Any

import grpc
import grpc.aio
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf.message import DecodeError

from xds_server.discovery.node import Node
from xds_server.serving.session import Context, GroupOf, NodeRejected

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


class LoadReports:
    """Asks Envoys for reports, and gives each to the observers. All servers of a store share it.

    Clusters whose name begins with `ignored` are left out. Use it in the thread of the event loop.
    """

    def __init__(self, *observers: Callable[[LoadReport], None], ignored: str = "xds/") -> None:
        self._observers = list(observers)
        self._ignored = ignored
        self._interval: float | None = None
        self._bells: set[asyncio.Event] = set()

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
        first = await context.read()
        if first is _END:
            return
        node, group = Node.of(_parsed(first).node), None
        bell = asyncio.Event()
        self._bells.add(bell)
        writing = asyncio.create_task(self._write(context, bell))
        try:
            while (body := await context.read()) is not _END:
                if group is None:  # only now, because a group can cost a request to another server
                    group = await _group(node, context, group_of)
                self._take(node, group, _parsed(body))
        finally:
            writing.cancel()
            self._bells.discard(bell)

    async def _write(self, context: Context, bell: asyncio.Event) -> None:
        asked = None
        while True:
            if self._interval != asked:
                asked = self._interval
                response = lrs_pb2.LoadStatsResponse(send_all_clusters=asked is not None)
                response.load_reporting_interval.FromTimedelta(
                    _NEVER if asked is None else timedelta(seconds=asked)
                )
                await context.write(response)
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
