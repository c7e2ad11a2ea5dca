"""What a stream records of itself is in the order in which the client sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from tests.support.conversation import snapshot
from xds_server.discovery.stream import Protocol, Stream
from xds_server.discovery.types import CLUSTER
from xds_server.serving.events import Event
from xds_server.serving.first_config_slots import Slots
from xds_server.serving.session import Session
from xds_server.serving.store import Store

Request = discovery_pb2.DeltaDiscoveryRequest


class Prompt:
    """The wire to a client whose acknowledgement is read before `write` comes back."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._requests.put_nowait(Request(type_url=CLUSTER.url).SerializeToString())
        self._reading = asyncio.Event()

    async def read(self) -> Any:
        self._reading.set()
        return await self._requests.get()

    async def write(self, body: bytes) -> None:
        nonce = discovery_pb2.DeltaDiscoveryResponse.FromString(body).nonce
        self._reading.clear()
        answer = Request(type_url=CLUSTER.url, response_nonce=nonce)
        self._requests.put_nowait(answer.SerializeToString())
        await self._reading.wait()  # the server has taken the acknowledgement and wants more
        self._requests.put_nowait(grpc.aio.EOF)

    def peer(self) -> str:
        return "unix:"

    def auth_context(self) -> dict[str, Any]:
        return {}


async def test_a_response_is_recorded_before_its_acknowledgement_however_prompt_that_is() -> None:
    events: list[Event] = []
    store = Store(events.append)
    store.publish(snapshot(cluster={"a": "1"}))
    clock = asyncio.get_running_loop().time
    session = Session(1, Stream(Protocol.DELTA), store, lambda *_: "", clock, Slots(1, 3600))
    async with asyncio.timeout(30):
        await session.run(Prompt())  # type: ignore[arg-type]
    told = [type(event).__name__ for event in events]
    assert told == ["Published", "Connected", "Sent", "Acked", "Disconnected"]
