"""The client's side of the delta xDS protocol, without IO: requests to send, and rules from responses.

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
    """The rules of one type that are in use. They outlive every stream.

    `versions` are the accepted versions. `offered` are the versions of the last responses, rejected ones included. A
    new stream lists only the accepted versions, so the control plane sends the rejected rules again. `whole` is true
    after all rules of the control plane have arrived once.
    """

    tables: list[Table[Any]]
    versions: dict[str, str] = field(default_factory=dict)
    offered: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The result of one response. `refused` are rejected resources with reasons."""

    type: str
    changed: int
    removed: int
    refused: Mapping[str, str]


class HeldRules:
    """The rules of some tables, updated by responses. Only one thread at a time may use it."""

    def __init__(self, tables: Iterable[Table[Any]]) -> None:
        self._held: dict[str, _Held] = {}
        for table in tables:
            self._held.setdefault(PREFIX + table.type.full_name, _Held([])).tables.append(table)

    @property
    def complete(self) -> bool:
        """True after all rules of every type have arrived once. It never becomes false again."""
        return all(held.whole for held in self._held.values())

    def knows(self, type_url: str) -> bool:
        """True if this process uses rules of this type."""
        return type_url in self._held

    def whole(self, type_url: str) -> bool:
        """True if all rules of a type have arrived once."""
        held = self._held.get(type_url)
        return held is not None and held.whole

    @property
    def refused(self) -> Mapping[str, str]:
        """The rules whose newest form was rejected, with the reasons."""
        return {name: why for held in self._held.values() for name, why in held.refused.items()}

    def counts(self) -> Mapping[str, int]:
        """Return the number of rules, by the name of their type."""
        return {held.tables[0].type.name: len(held.versions) for held in self._held.values()}

    def first_requests(self, node: base_pb2.Node) -> Sequence[discovery_pb2.DeltaDiscoveryRequest]:
        """Return the first requests of a new stream. They subscribe to all rules, and list the versions in use."""
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
        """Load the rules of an earlier process. Returns True if every type is among the `whole` ones.

        `complete` stays false, because the current rules of the control plane are unknown.
        """
        for record in records:
            if (held := self._held.get(record.type_url)) is not None:
                _replace(held, record)
        return self._held.keys() <= set(whole)

    def receive(
        self, response: discovery_pb2.DeltaDiscoveryResponse
    ) -> tuple[discovery_pb2.DeltaDiscoveryRequest, Taken]:
        """Handle a response: its good rules replace the old ones. Returns the ACK or NACK to send."""
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=response.type_url, response_nonce=response.nonce
        )
        held = self._held.get(response.type_url)
        if held is None:
            why = {"": f"this client did not subscribe to {response.type_url}"}
            _refuse(request, why)
            return request, Taken(type=response.type_url, changed=0, removed=0, refused=why)
        refused = _replace(held, response)
        if refused:
            _refuse(request, refused)
        held.whole = held.whole or state_version(held.offered) == response.system_version_info
        name = held.tables[0].type.name
        removed = len(response.removed_resources)
        return request, Taken(type=name, changed=len(response.resources), removed=removed, refused=refused)


def _replace(held: _Held, response: discovery_pb2.DeltaDiscoveryResponse) -> dict[str, str]:
    bodies = {resource.name: resource.resource.value for resource in response.resources}
    refused: dict[str, str] = {}
    for table in held.tables:
        refused |= table.replace(bodies, response.removed_resources)
    for resource in response.resources:
        held.offered[resource.name] = resource.version
        held.refused.pop(resource.name, None)
        if resource.name not in refused:
            held.versions[resource.name] = resource.version
    for name in response.removed_resources:
        for gone in (held.offered, held.versions, held.refused):
            gone.pop(name, None)
    held.refused |= refused
    return refused


def _refuse(request: discovery_pb2.DeltaDiscoveryRequest, refused: Mapping[str, str]) -> None:
    message = "; ".join(f"{name}: {why}" if name else why for name, why in sorted(refused.items()))
    request.error_detail.code = INVALID_ARGUMENT
    request.error_detail.message = message[:4000]
