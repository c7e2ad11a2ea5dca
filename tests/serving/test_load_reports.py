"""Load reports over a real gRPC stream: whoever has not proved who they are holds few streams, and none for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from tests.support.wait import eventually
from xds_server.discovery.node import Node
from xds_server.serving.load_reports import NAME, LoadReport, LoadReportLimits, LoadReports
from xds_server.serving.server import XdsServer
from xds_server.serving.session import Context
from xds_server.serving.store import Store

OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class Served:
    """An xDS server that serves only nodes whose id begins with "good", and counts how often it was asked."""

    def __init__(self, **limits: Any) -> None:
        self.asked: list[str] = []
        self.taken: list[LoadReport] = []
        self.reports = LoadReports(self.taken.append, limits=LoadReportLimits(**limits))
        self.server = XdsServer(Store(), group_of=self._group, load_reports=self.reports)
        self.channel: grpc.aio.Channel

    async def _group(self, node: Node, _context: Context) -> str | None:
        self.asked.append(node.id)
        return "" if node.id.startswith("good") else None

    async def stream(self, node: str) -> Any:
        """A stream whose client has said its name, and no more."""
        method: Any = self.channel.stream_stream(
            f"/{NAME}/StreamLoadStats",
            request_serializer=lrs_pb2.LoadStatsRequest.SerializeToString,
            response_deserializer=lrs_pb2.LoadStatsResponse.FromString,
        )
        found = method()
        if node:
            await found.write(lrs_pb2.LoadStatsRequest(node={"id": node}))
        return found


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Served]:
    made = Served(**limits)
    port = await made.server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel, asyncio.timeout(50):
            made.channel = channel
            yield made
    finally:
        await made.server.stop(0)


def report(requests: int) -> lrs_pb2.LoadStatsRequest:
    request = lrs_pb2.LoadStatsRequest()
    request.cluster_stats.add(cluster_name="shop").upstream_locality_stats.add(
        total_successful_requests=requests
    )
    return request


async def test_a_client_that_says_nothing_loses_its_stream() -> None:
    async with serving(first_request=0.1) as xds:
        stream = await xds.stream("")
        assert await stream.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert xds.asked == []


async def test_a_client_that_does_not_report_loses_its_stream_and_one_that_has_does_not() -> None:
    async with serving(first_request=3.0) as xds:
        xds.reports.request(0.05)
        good, silent = await xds.stream("good"), await xds.stream("good-too")
        await good.read()
        await good.write(report(5))
        await eventually(lambda: xds.taken, "the report")
        assert (xds.taken[0].node, xds.taken[0].requests) == ("good", 5)
        assert (await silent.read()).send_all_clusters
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await silent.read()
        assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not good.done()
        assert xds.asked == ["good"]


async def test_while_nothing_needs_reports_a_client_waits_without_being_proved() -> None:
    async with serving(first_request=2.0) as xds:
        waiting = await xds.stream("bad")
        assert await (await xds.stream("")).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not waiting.done()
        assert xds.asked == []


async def test_if_many_wait_at_an_address_the_next_one_is_proved_first() -> None:
    async with serving(trusted=2) as xds:
        first = [await xds.stream("bad"), await xds.stream("bad")]
        await eventually(lambda: sum(xds.reports._unproved.values()) == 2, "two streams")
        assert await (await xds.stream("bad-too")).code() == grpc.StatusCode.PERMISSION_DENIED
        good = [await xds.stream(f"good-{number}") for number in range(5)]
        await eventually(lambda: len(xds.asked) == 6, "five clients that were proved")
        xds.reports.request(1.0)
        for one in good:
            assert (await one.read()).send_all_clusters
        first[0].cancel()
        await eventually(lambda: sum(xds.reports._unproved.values()) == 1, "the end of one")
        waiting = await xds.stream("bad")
        await waiting.read()
        assert len(xds.asked) == 6


async def test_an_address_has_a_limit_of_streams_that_have_reported_nothing() -> None:
    async with serving(unproved=2) as xds:
        waiting = [await xds.stream(""), await xds.stream("")]
        await eventually(lambda: sum(xds.reports._unproved.values()) == 2, "two streams")
        try:
            code = await (await xds.stream("good")).code()
        except grpc.aio.AioRpcError as error:  # the stream may end before its first message is written
            code = error.code()
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        for one in waiting:
            one.cancel()
        await eventually(lambda: not xds.reports._unproved, "the end of both")
