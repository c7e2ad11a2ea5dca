"""A client that shows what any xDS server serves: the client's side of the protocol, and the stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from xds_server.discovery.stream import Protocol
from xds_server.discovery.types import ResourceType
from xds_server.serving.services import ADS

LAST_WORDS = 2.0
"""Seconds that a server gets to end a stream after the client has ended it."""
_METHODS = {Protocol.SOTW: "StreamAggregatedResources", Protocol.DELTA: "DeltaAggregatedResources"}
_REQUESTS: dict[Protocol, Any] = {
    Protocol.SOTW: discovery_pb2.DiscoveryRequest,
    Protocol.DELTA: discovery_pb2.DeltaDiscoveryRequest,
}
_RESPONSES: dict[Protocol, Any] = {
    Protocol.SOTW: discovery_pb2.DiscoveryResponse,
    Protocol.DELTA: discovery_pb2.DeltaDiscoveryResponse,
}


@dataclass(frozen=True, slots=True)
class Received:
    """One resource. In the state-of-the-world protocol, its version is that of the response."""

    name: str
    version: str
    body: any_pb2.Any


@dataclass(frozen=True, slots=True)
class Update:
    """One response."""

    version: str
    nonce: str
    resources: tuple[Received, ...]
    removed: tuple[str, ...]


class WatchClient:
    """Subscribes to names of one type (none: all). With `reject`, it rejects every response with that message."""

    def __init__(
        self,
        type_: ResourceType,
        names: Sequence[str],
        protocol: Protocol,
        *,
        node: base_pb2.Node,
        reject: str | None = None,
    ) -> None:
        self.type = type_
        self.protocol = protocol
        self._names = list(names) or ([] if type_.whole else ["*"])
        self._node = node
        self._reject = reject
        self._accepted = ""

    def first(self) -> Message:
        """Return the request that opens the stream."""
        request = self._request()
        request.node.CopyFrom(self._node)
        if self.protocol is Protocol.DELTA:
            request.resource_names_subscribe.extend(self._names)
        return self._message(request)

    def receive(self, response: Any) -> tuple[Update, Message]:
        """Return the content of a response, and the request that acknowledges or rejects it."""
        update = self._sotw(response) if self.protocol is Protocol.SOTW else _delta(response)
        if self._reject is None:
            self._accepted = update.version
        request = self._request()
        request.response_nonce = update.nonce
        if self._reject is not None:
            request.error_detail.code = 3  # INVALID_ARGUMENT
            request.error_detail.message = self._reject
        return update, self._message(request)

    def _request(self) -> Any:
        request = _REQUESTS[self.protocol](type_url=self.type.url)
        if self.protocol is Protocol.SOTW:
            request.resource_names.extend(self._names)
            request.version_info = self._accepted
        return request

    def _message(self, request: Any) -> Message:
        assert isinstance(request, Message)
        return request

    def _sotw(self, response: discovery_pb2.DiscoveryResponse) -> Update:
        version = response.version_info
        received = tuple(Received(_name(body), version, body) for body in response.resources)
        return Update(version, response.nonce, received, ())


def _delta(response: discovery_pb2.DeltaDiscoveryResponse) -> Update:
    received = tuple(
        Received(resource.name, resource.version, resource.resource) for resource in response.resources
    )
    return Update(response.system_version_info, response.nonce, received, tuple(response.removed_resources))


def _name(body: any_pb2.Any) -> str:
    """Return the name inside of a resource, because a state-of-the-world response has no other."""
    message = unpacked(body)
    return str(getattr(message, "name", "") or getattr(message, "cluster_name", "")) or "?"


def unpacked(body: any_pb2.Any) -> Message | None:
    """Return the message of a resource, or None if its type is unknown or its body is not such a message."""
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(body.type_url.rpartition("/")[2])
        return message_factory.GetMessageClass(descriptor).FromString(body.value)
    except (KeyError, DecodeError):
        return None


async def watch(
    address: str,
    client: WatchClient,
    credentials: grpc.ChannelCredentials | None = None,
    options: Mapping[str, int | str] | None = None,
) -> AsyncIterator[Update]:
    """Yield every response of the server, and acknowledge it. Raises grpc.aio.AioRpcError if the stream breaks."""
    arguments: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1), *(options or {}).items()]
    if credentials is None:
        channel = grpc.aio.insecure_channel(address, arguments)
    else:
        channel = grpc.aio.secure_channel(address, credentials, arguments)
    async with channel:
        method: Any = channel.stream_stream(
            f"/{ADS}/{_METHODS[client.protocol]}",
            request_serializer=_REQUESTS[client.protocol].SerializeToString,
            response_deserializer=_RESPONSES[client.protocol].FromString,
        )
        stream = method()
        await stream.write(client.first())
        async for response in stream:
            update, request = client.receive(response)
            await stream.write(request)
            try:
                yield update
            except GeneratorExit:
                await _hang_up(stream)
                raise


async def _hang_up(stream: Any) -> None:
    """End a stream so that the server reads the last request, which a cancelled call may lose."""
    with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError):
        await stream.done_writing()
        async with asyncio.timeout(LAST_WORDS):
            async for _ in stream:
                pass
