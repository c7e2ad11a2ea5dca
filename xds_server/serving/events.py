"""What an operator, a metric or the gateway's own code learns from the streams, as values."""

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
    """A stream ended; `reason` is empty when the client ended it."""

    stream: int
    node: Node
    group: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A response goes out; recorded before what the client makes of it."""

    stream: int
    node: Node
    group: str
    type: ResourceType
    version: str
    resources: int
    removed: int
    size: int
    """Bytes on the wire, before HTTP/2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """A client accepted a response.

    `versions` are the resources of that response by name. `latency` is in seconds from sending to accepting,
    `convergence` from the publication of the snapshot that the response came from.
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
    """A client rejected a response; `message` is its own. It keeps what it had.

    `blamed` are the names that the message is about, with the version that was rejected; empty when it
    cannot be told.
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
    """A client took too long to acknowledge; what waited for that was sent without. `waited` in seconds."""

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
    """One quarantined resource. `standing` is the version that is served in its place; None: nothing is."""

    type: ResourceType
    name: str
    version: str
    standing: str | None
    message: str
    """The client's own words."""
    node: str
    """Who rejected it; empty where its release is known to lack what it needs."""
    place: str = ""
    """Where the resource came from, when somebody told: ``file:line``."""
    closed: bool = False
    """Whether something answers 503 in its place."""
    release: str = ""
    """The release that is not served it, such as ``envoy 1.40``; empty: nobody is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A rejected resource is held back from now on, for its whole group."""

    group: str
    held: Held


Event = Connected | Disconnected | Sent | Acked | Nacked | Overdue | Published | Quarantined
