"""Events of the streams, as values: for operators, for metrics and for the gateway's own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xds_server.discovery.node import Node
from xds_server.discovery.types import ResourceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A client sent its first request on a new stream."""

    stream: int
    node: Node
    group: str
    protocol: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """A stream ended. `reason` is empty if the client ended it."""

    stream: int
    node: Node
    group: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A response is sent. This is recorded before the client accepts or rejects it."""

    stream: int
    node: Node
    group: str
    type: ResourceType
    version: str
    resources: int
    removed: int
    size: int
    """Bytes on the wire, without the framing of HTTP/2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A client that reconnects has a type in the served version already, so it is sent nothing of it."""

    stream: int
    node: Node
    group: str
    type: ResourceType
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """A client accepted a response.

    `versions` are the versions of its resources by name. `latency` is in seconds from sending the response,
    `convergence` in seconds from the publication of its snapshot.
    """

    stream: int
    node: Node
    group: str
    type: ResourceType
    version: str
    versions: Mapping[str, str]
    removed: tuple[str, ...]
    latency: float
    convergence: float
    release: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nacked:
    """A client rejected a response and keeps what it had. `message` is the client's own text.

    `blamed` are the names that the message is about, with the rejected versions. It is empty if they are unknown.
    """

    stream: int
    node: Node
    group: str
    type: ResourceType
    version: str
    versions: Mapping[str, str]
    message: str
    blamed: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0
    release: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A client did not acknowledge in time, so responses that waited for it were sent. `waited` is in seconds."""

    stream: int
    node: Node
    group: str
    waited: float
    unacknowledged: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A group has a new snapshot. `changed` and `removed` count resources by type."""

    group: str
    changed: Mapping[ResourceType, int]
    removed: Mapping[ResourceType, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One quarantined resource. `standing` is the version that is served instead, or None if nothing is."""

    type: ResourceType
    name: str
    version: str
    standing: str | None
    message: str
    """The client's own text."""
    node: str
    """The node that rejected it. It is empty if the client's release is known not to support the resource."""
    place: str = ""
    """The position that the resource came from, as ``file:line``, if it is known."""
    closed: bool = False
    """True if a stand-in that answers 503 is served instead."""
    origin: tuple[str, ...] = ()
    """The object of the gateway that is held back, as a path, if the resource contains several objects."""
    release: str = ""
    """The release that is not served the resource, such as ``envoy 1.40``; empty if no release is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A rejected resource is quarantined from now on, for its whole group."""

    group: str
    held: Held


Event = Connected | Disconnected | Resumed | Sent | Acked | Nacked | Overdue | Published | Quarantined
