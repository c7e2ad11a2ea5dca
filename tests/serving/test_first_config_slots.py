"""Clients that come all at once get their first configuration in turns, and no silent one holds the others back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from tests.support.conversation import snapshot
from tests.support.wait import eventually
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import CLUSTER
from xds_server.serving.events import Acked, Connected, Disconnected, Event, Sent
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store

Request = discovery_pb2.DeltaDiscoveryRequest


class Fleet:
    """`under_way` are the streams that were sent something and have not answered; `most` is their highest number."""

    def __init__(self, channel: grpc.aio.Channel, store: Store) -> None:
        self._channel = channel
        self.store = store
        self.connected = 0
        self.under_way: set[int] = set()
        self.most = 0
        store.observe(self._observe)

    def _observe(self, event: Event) -> None:
        match event:
            case Connected():
                self.connected += 1
            case Sent():
                self.under_way.add(event.stream)
                self.most = max(self.most, len(self.under_way))
            case Acked() | Disconnected():
                self.under_way.discard(event.stream)

    async def until_connected(self, count: int) -> None:
        await eventually(lambda: self.connected >= count, f"{count} clients")

    async def client(self) -> Any:
        """A stream that has asked for all clusters."""
        stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self._channel).DeltaAggregatedResources()
        await stream.write(Request(type_url=CLUSTER.url))
        return stream


@asynccontextmanager
async def served(first_at_once: int, patience: float = 3600.0) -> AsyncIterator[Fleet]:
    store = Store()
    store.publish(snapshot(cluster={"a": "1"}))
    server = XdsServer(store, limits=StreamLimits(ack_timeout=patience), first_at_once=first_at_once)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(30):
        yield Fleet(channel, store)
    await server.stop()


async def accept(stream: Any) -> Any:
    response = await stream.read()
    await stream.write(Request(type_url=CLUSTER.url, response_nonce=response.nonce))
    return response


async def test_no_more_first_responses_are_under_way_than_allowed_and_everybody_is_served() -> None:
    async with served(3) as fleet:
        streams = [await fleet.client() for _ in range(50)]
        await fleet.until_connected(50)
        answers = await asyncio.gather(*(accept(one) for one in streams))
        assert {one.resources[0].version for one in answers} == {"1"}
        assert fleet.most == 3


async def test_who_waits_for_a_turn_is_sent_the_newest_state() -> None:
    async with served(1) as fleet:
        first = await fleet.client()
        response = await first.read()
        second = await fleet.client()
        await fleet.until_connected(2)
        fleet.store.publish(snapshot(cluster={"a": "2"}))
        await first.write(Request(type_url=CLUSTER.url, response_nonce=response.nonce))
        assert [one.version for one in (await accept(second)).resources] == ["2"]
        assert [one.version for one in (await accept(first)).resources] == ["2"]


async def test_a_client_that_never_answers_holds_the_next_one_back_only_for_a_while() -> None:
    async with served(1, patience=0.05) as fleet:
        silent, next_one = await fleet.client(), await fleet.client()
        assert len((await silent.read()).resources) == 1
        assert len((await accept(next_one)).resources) == 1


async def test_a_client_that_leaves_gives_its_turn_to_the_next() -> None:
    async with served(1) as fleet:
        leaving = await fleet.client()
        await leaving.read()
        next_one = await fleet.client()
        await fleet.until_connected(2)
        leaving.cancel()
        assert len((await accept(next_one)).resources) == 1
