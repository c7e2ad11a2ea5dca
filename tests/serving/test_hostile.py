"""Clients that break the protocol, never read, say nothing or leave: each costs little, and nobody else notices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc

from tests.support.conversation import snapshot
from tests.support.wait import eventually
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import CLUSTER, ENDPOINT
from xds_server.serving.csds import ClientStatus
from xds_server.serving.events import Disconnected, Event, Sent
from xds_server.serving.metrics import Metrics
from xds_server.serving.server import XdsServer
from xds_server.serving.services import ADS
from xds_server.serving.store import Store

Request = discovery_pb2.DeltaDiscoveryRequest
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


class Served:
    def __init__(self, channel: grpc.aio.Channel, store: Store, server: XdsServer) -> None:
        self.channel, self.store, self.server = channel, store, server
        self.events: list[Event] = []
        store.observe(self.events.append)

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Disconnected)]

    def stream(self) -> Any:
        """A stream of bytes."""
        method: Any = self.channel.stream_stream(f"/{ADS}/DeltaAggregatedResources")
        return method()


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Served]:
    store = Store()
    store.publish(snapshot(cluster={"a": "1"}))
    server = XdsServer(store, limits=StreamLimits(**limits))
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel, asyncio.timeout(30):
        yield Served(channel, store, server)
    await server.stop(0)


def clusters(**fields: Any) -> bytes:
    return Request(type_url=CLUSTER.url, **fields).SerializeToString()


async def ending(stream: Any) -> tuple[grpc.StatusCode, str]:
    while await stream.read() is not grpc.aio.EOF:
        pass
    return await stream.code(), await stream.details()


def _errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged, but for grpcio's own poller, which fails if the loop of an earlier test has ended."""
    return [one for one in caplog.records if "PollerCompletionQueue" not in one.getMessage()]


@pytest.mark.parametrize("earlier", [[], [clusters()]])
async def test_what_is_no_request_is_refused_and_is_no_error_of_the_server(
    earlier: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as xds:
        stream = xds.stream()
        for request in (*earlier, b"\xff\xff\xff"):
            await stream.write(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ending(stream)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "not a discovery request" in str(caught.value.details())
    assert not _errors(caplog)


async def test_a_client_that_says_nothing_is_sent_home() -> None:
    async with serving(first_request_timeout=0.01) as xds:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ending(xds.stream())
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not xds.server.services.sessions


async def test_a_client_that_never_reads_is_given_up_and_holds_no_other_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its connection has room for some megabytes; what is beyond waits for it, and then for nobody."""
    async with serving(write_timeout=0.2, response=1 << 18) as xds:
        many = [Resource.from_bytes(f"r{number}", bytes(1 << 18)) for number in range(40)]
        xds.store.publish(Snapshot.of({ENDPOINT: many, CLUSTER: [Resource.from_bytes("b", b"")]}))
        stream = xds.stream()
        ask = Request(type_url=ENDPOINT.url, resource_names_subscribe=["*"])
        await stream.write(ask.SerializeToString())
        while not xds.reasons:  # it accepts what it does not read
            for nonce in range(1, 41):
                answer = Request(type_url=ENDPOINT.url, response_nonce=str(nonce))
                await stream.write(answer.SerializeToString())
        assert xds.reasons == ["the client did not read a response within 0.2 s"]
        assert not _errors(caplog)
        other = xds.stream()
        await other.write(clusters())
        assert await other.read() is not grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ending(stream)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_leaves_while_it_is_written_to_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as xds:
        xds.store.publish(Snapshot.of({CLUSTER: [Resource.from_bytes("b", bytes(1 << 24))]}))
        stream = xds.stream()
        await stream.write(clusters())
        await eventually(lambda: any(isinstance(event, Sent) for event in xds.events), "a response")
        stream.cancel()
        await eventually(lambda: xds.reasons, "the end of the stream")
    assert not _errors(caplog)


async def test_a_node_may_say_so_much_of_itself_and_no_more() -> None:
    async with serving() as xds:
        request = Request(type_url=CLUSTER.url)
        request.node.metadata["story"] = "x" * (1 << 18)
        stream = xds.stream()
        await stream.write(request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ending(stream)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("peer", "anywhere", "told"),
    [("unix:", False, True), ("ipv4:192.0.2.1:5", False, False), ("ipv4:192.0.2.1:5", True, True)],
)
async def test_client_status_is_told_to_this_machine_only(peer: str, anywhere: bool, told: bool) -> None:
    async with serving() as xds:
        stream = xds.stream()
        await stream.write(clusters())
        await stream.read()
        status = ClientStatus(xds.server.services, anywhere=anywhere)
        try:
            answer = await status.fetch(csds_pb2.ClientStatusRequest(), Peer(peer))  # type: ignore[arg-type]
        except PermissionError:
            assert not told
        else:
            assert told
            assert len(answer.config) == 1


class Peer:
    """What a service sees of a client."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        assert code == grpc.StatusCode.PERMISSION_DENIED
        raise PermissionError(details)


async def test_an_expression_that_is_none_is_the_clients_mistake() -> None:
    async with serving() as xds:
        stream = xds.stream()
        await stream.write(clusters())
        await stream.read()
        request = csds_pb2.ClientStatusRequest()
        request.node_matchers.add().node_id.safe_regex.regex = "("
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await csds_pb2_grpc.ClientStatusDiscoveryServiceStub(xds.channel).FetchClientStatus(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_types_that_a_client_makes_up_have_no_metrics_of_their_own() -> None:
    async with serving() as xds:
        metrics = Metrics(xds.store)
        xds.store.observe(metrics.observe)
        for number in range(3):
            stream = xds.stream()
            url = f"type.googleapis.com/made.up.Type{number}"
            await stream.write(Request(type_url=url, resource_names_subscribe=["*"]).SerializeToString())
            await stream.read()
        assert metrics.registry.get_sample_value("xds_pushes_total", {"type": "unknown"}) == 3
        assert b"Type" not in metrics.text()
