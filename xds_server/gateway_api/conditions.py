"""Conditions of the Gateway API: what is true of an object, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.specs import ParentReference, RouteKind

CONTROLLER = "xds-gateway.dev/controller"
"""The name of this controller, which a GatewayClass names in `controllerName`."""

_LONGEST = 32768
"""Characters of a message that the API server takes."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of an object. `reason` is a word of the specification."""

    type: str
    status: bool
    reason: str
    message: str = ""

    def as_json(self, generation: int) -> Mapping[str, Any]:
        """Return the condition as it stands in a status, without the time of its last change."""
        return {
            "type": self.type,
            "status": "True" if self.status else "False",
            "reason": self.reason,
            "message": self.message[:_LONGEST],
            "observedGeneration": generation,
        }


def accepted(reason: str = "Accepted", message: str = "") -> Condition:
    """Return the condition Accepted, true if the reason is the default."""
    return Condition("Accepted", reason == "Accepted", reason, message)


def resolved(reason: str = "ResolvedRefs", message: str = "") -> Condition:
    """Return the condition ResolvedRefs, true if the reason is the default."""
    return Condition("ResolvedRefs", reason == "ResolvedRefs", reason, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerStatus:
    """What is true of a listener. Whether it is programmed is known only when Envoys have it."""

    name: str
    kinds: tuple[RouteKind, ...]
    attached: int
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """What is true of a Gateway and its listeners."""

    key: Key
    generation: int
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]
    attached_sets: int = 0
    """The ListenerSets that have a listener which is served."""
    wanted_addresses: tuple[str, ...] = ()
    """The addresses that it asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSetStatus:
    """What is true of a ListenerSet of a Gateway."""

    key: Key
    generation: int
    gateway: Key
    accepted: Condition
    listeners: tuple[ListenerStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentStatus:
    """What is true of a route at one of its parents."""

    parent: ParentReference
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatus:
    """What is true of a BackendTLSPolicy, at each Gateway that uses one of its Services."""

    key: Key
    generation: int
    gateways: tuple[Key, ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AncestorStatus:
    """What is true of an object of our own at one Gateway, at a target that does not exist, or at a namespace."""

    ancestor: ParentReference
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStatus:
    """What is true of a GatewayPolicy, Consumer, Plan, IdentityProvider or MeshPolicy (GEP-713)."""

    kind: str
    key: Key
    generation: int
    ancestors: tuple[AncestorStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with an object that has no conditions: where, what, and what to do. `reason` is a word for an Event."""

    path: tuple[str, ...]
    message: str
    remedy: str = ""
    reason: str

    def __str__(self) -> str:
        place = self.path[-1] if self.path[:1] == ("metadata",) else ".".join(self.path)
        return f"{place}: {self.message}{'; ' if self.remedy else ''}{self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressStatus:
    """What is wrong with an IngressClass that is served, or with an Ingress of it."""

    kind: str
    key: Key
    ingress_class: str
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStatus:
    """What is true of a route."""

    kind: str
    key: Key
    generation: int
    parents: tuple[ParentStatus, ...] = field(default=())
