"""The delta xDS protocol from the client's side, without IO: what to ask for, and what became of each response.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from filters.rules import Table
from xds_server.discovery.snapshot import state_version
from xds_server.discovery.types import PREFIX

INVALID_ARGUMENT = 3
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""


@dataclass(slots=True)
class _Held:
    """What is held of one type. It outlives every stream.

    `versions` are those that were taken; `offered` also those that were refused since, which a new stream
    offers again. `whole` says that everything the control plane has was once here.
    """

    tables: list[Table[Any]]
    versions: dict[str, str] = field(default_factory=dict)
    offered: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of one response; `refused` are resources with reasons."""

    type: str
    changed: int
    removed: int
    refused: Mapping[str, str]


class HeldRules:
    """The rules of some tables, brought up to date by responses. One thread at a time may use it."""

    def __init__(self, tables: Iterable[Table[Any]]) -> None:
        self._held: dict[str, _Held] = {}
        for table in tables:
            self._held.setdefault(PREFIX + table.type.full_name, _Held([])).tables.append(table)

    @property
    def complete(self) -> bool:
        """Whether every type was once here as a whole; it never becomes false again."""
        return all(held.whole for held in self._held.values())

    def knows(self, type_url: str) -> bool:
        """Whether rules of this type are held here."""
        return type_url in self._held

    def whole(self, type_url: str) -> bool:
        """Whether a type was once here as a whole."""
        held = self._held.get(type_url)
        return held is not None and held.whole

    @property
    def refused(self) -> Mapping[str, str]:
        """The rules whose newest form was refused, with the reasons."""
        return {name: why for held in self._held.values() for name, why in held.refused.items()}

    def counts(self) -> Mapping[str, int]:
        """How many rules of each type are held, by the type's name."""
        return {held.tables[0].type.name: len(held.versions) for held in self._held.values()}

    def first_requests(self, node: base_pb2.Node) -> Sequence[discovery_pb2.DeltaDiscoveryRequest]:
        """What a new stream begins with: everything of each type, but for what is here already."""
        requests: list[discovery_pb2.DeltaDiscoveryRequest] = []
        for url, held in self._held.items():
            held.offered = dict(held.versions)
            requests.append(
                discovery_pb2.DeltaDiscoveryRequest(
                    node=None if requests else node,
                    type_url=url,
                    resource_names_subscribe=["*"],
                    initial_resource_versions=held.versions,
                )
            )
        return requests

    def restore(
        self, records: Iterable[discovery_pb2.DeltaDiscoveryResponse], whole: Collection[str]
    ) -> bool:
        """Begin with what was held before; whether every type is among the `whole` ones.

        `complete` stays as it is: what the control plane has now is not known.
        """
        for one in records:
            if (held := self._held.get(one.type_url)) is not None:
                _replace(held, one)
        return self._held.keys() <= set(whole)

    def receive(
        self, response: discovery_pb2.DeltaDiscoveryResponse
    ) -> tuple[discovery_pb2.DeltaDiscoveryRequest, Taken]:
        """Take a response: the good rules of it replace the old ones. Returns the ACK or NACK to send."""
        answer = discovery_pb2.DeltaDiscoveryRequest(
            type_url=response.type_url, response_nonce=response.nonce
        )
        held = self._held.get(response.type_url)
        if held is None:
            why = {"": f"{response.type_url} was not asked for"}
            _refuse(answer, why)
            return answer, Taken(type=response.type_url, changed=0, removed=0, refused=why)
        refused = _replace(held, response)
        if refused:
            _refuse(answer, refused)
        held.whole = held.whole or state_version(held.offered) == response.system_version_info
        name = held.tables[0].type.name
        removed = len(response.removed_resources)
        return answer, Taken(type=name, changed=len(response.resources), removed=removed, refused=refused)


def _replace(held: _Held, response: discovery_pb2.DeltaDiscoveryResponse) -> dict[str, str]:
    bodies = {one.name: one.resource.value for one in response.resources}
    refused: dict[str, str] = {}
    for table in held.tables:
        refused |= table.replace(bodies, response.removed_resources)
    for one in response.resources:
        held.offered[one.name] = one.version
        held.refused.pop(one.name, None)
        if one.name not in refused:
            held.versions[one.name] = one.version
    for name in response.removed_resources:
        for gone in (held.offered, held.versions, held.refused):
            gone.pop(name, None)
    held.refused |= refused
    return refused


def _refuse(answer: discovery_pb2.DeltaDiscoveryRequest, refused: Mapping[str, str]) -> None:
    message = "; ".join(f"{name}: {why}" if name else why for name, why in sorted(refused.items()))
    answer.error_detail.code = INVALID_ARGUMENT
    answer.error_detail.message = message[:4000]
