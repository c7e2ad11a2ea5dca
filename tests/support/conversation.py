"""A stream and its client in conversation, step by step, without a wire: what a test says reads as the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from xds_server.discovery.events import Received, Response
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.stream import Protocol, Stream, StreamLimits
from xds_server.discovery.types import TYPES, ResourceType


def snapshot(**types: Mapping[str, str]) -> Snapshot:
    """A snapshot of opaque resources: ``snapshot(cluster={"a": "1"})``; the value stands for the content."""
    by_name = {type_.name: type_ for type_ in TYPES}
    return Snapshot.of(
        {
            by_name[kind]: [Resource.from_bytes(name, b"", version) for name, version in items.items()]
            for kind, items in types.items()
        }
    )


class Conversation:
    """One stream. Every step returns what the server sends next."""

    def __init__(
        self,
        protocol: Protocol,
        served: Snapshot | None = None,
        *,
        only: ResourceType | None = None,
        limits: StreamLimits | None = None,
    ) -> None:
        self.stream = Stream(protocol, only=only, limits=limits)
        self.served = served
        self.earlier: list[Snapshot] = []
        self.now = 0.0
        self.event: Received | None = None
        self._versions: dict[ResourceType, str] = {}

    def publish(self, served: Snapshot) -> list[Response]:
        if self.served is not None:
            self.earlier.insert(0, self.served)
        self.served = served
        return self._responses()

    def wait(self, seconds: float) -> list[Response]:
        self.now += seconds
        return self._responses()

    def say(self, request: DiscoveryRequest | DeltaDiscoveryRequest) -> list[Response]:
        self.event = self.stream.receive(request)
        return self._responses()

    def _responses(self) -> list[Response]:
        return self.stream.responses(self.served, self.now, self.earlier)


class Sotw(Conversation):
    """A state-of-the-world client. `names` None repeats the last list."""

    def __init__(self, served: Snapshot | None = None, **options: object) -> None:
        super().__init__(Protocol.SOTW, served, **options)  # type: ignore[arg-type]
        self._names: dict[ResourceType, list[str]] = {}

    def ask(
        self, type_: ResourceType, *names: str, nonce: str = "", version: str = "", node: str = ""
    ) -> list[Response]:
        self._names[type_] = list(names)
        request = DiscoveryRequest(
            type_url=type_.url, resource_names=names, response_nonce=nonce, version_info=version
        )
        if node:
            request.node.id = node
        return self.say(request)

    def ack(self, response: Response, names: Iterable[str] | None = None) -> list[Response]:
        self._versions[response.type] = response.version
        return self._answer(response, names)

    def nack(self, response: Response, message: str = "wrong") -> list[Response]:
        return self._answer(response, None, message)

    def _answer(
        self, response: Response, names: Iterable[str] | None, message: str | None = None
    ) -> list[Response]:
        listed = self._names.get(response.type, []) if names is None else list(names)
        self._names[response.type] = listed
        request = DiscoveryRequest(
            type_url=response.type.url,
            resource_names=listed,
            response_nonce=response.nonce,
            version_info=self._versions.get(response.type, ""),
        )
        if message is not None:
            request.error_detail.message = message
        return self.say(request)


class Delta(Conversation):
    """A delta client."""

    def __init__(self, served: Snapshot | None = None, **options: object) -> None:
        super().__init__(Protocol.DELTA, served, **options)  # type: ignore[arg-type]

    def ask(
        self,
        type_: ResourceType,
        *subscribe: str,
        unsubscribe: Iterable[str] = (),
        has: Mapping[str, str] | None = None,
        nonce: str = "",
        node: str = "",
    ) -> list[Response]:
        request = DeltaDiscoveryRequest(
            type_url=type_.url,
            resource_names_subscribe=subscribe,
            resource_names_unsubscribe=unsubscribe,
            initial_resource_versions=has or {},
            response_nonce=nonce,
        )
        if node:
            request.node.id = node
        return self.say(request)

    def ack(self, response: Response) -> list[Response]:
        return self.say(DeltaDiscoveryRequest(type_url=response.type.url, response_nonce=response.nonce))

    def nack(self, response: Response, message: str = "wrong") -> list[Response]:
        request = DeltaDiscoveryRequest(type_url=response.type.url, response_nonce=response.nonce)
        request.error_detail.message = message
        return self.say(request)


def content(response: Response) -> dict[str, str]:
    """What a response holds: name and version."""
    return {one.name: one.version for one in response.resources}
