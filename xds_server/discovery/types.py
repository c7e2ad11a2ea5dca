"""The one table of resource types. Differences between types are columns here, and never branches in other code."""

from __future__ import annotations

from dataclasses import dataclass, field

PREFIX = "type.googleapis.com/"


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A kind of xDS resource. Two types are equal if their messages are.

    `order` is make before break: types are sent from low to high, and removals from high to low.

    `whole` is true if a state-of-the-world response holds all resources, and absence deletes (LDS, CDS). Such types
    also have the old wildcard, an empty list of names.

    `stops_at_first` is true if Envoy stops at the first bad resource of a response without naming it. Each such
    resource is sent to Envoy in a response of its own, so that it is clear which resource a rejection means.
    """

    name: str = field(compare=False)
    short: str = field(compare=False)
    message: str
    order: int = field(compare=False)
    whole: bool = field(default=False, compare=False)
    stops_at_first: bool = field(default=False, compare=False)

    def __hash__(self) -> int:
        return hash(self.message)

    @property
    def url(self) -> str:
        """The type URL on the wire."""
        return PREFIX + self.message


SECRET = ResourceType(
    "secret",
    "SDS",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    2,
    stops_at_first=True,
)
CLUSTER = ResourceType("cluster", "CDS", "envoy.config.cluster.v3.Cluster", 0, whole=True)
ENDPOINT = ResourceType("endpoint", "EDS", "envoy.config.endpoint.v3.ClusterLoadAssignment", 1)
EXTENSION_CONFIG = ResourceType(
    "extension_config", "ECDS", "envoy.config.core.v3.TypedExtensionConfig", 3, stops_at_first=True
)
LISTENER = ResourceType("listener", "LDS", "envoy.config.listener.v3.Listener", 4, whole=True)
SCOPED_ROUTE = ResourceType("scoped_route", "SRDS", "envoy.config.route.v3.ScopedRouteConfiguration", 5)
ROUTE = ResourceType("route", "RDS", "envoy.config.route.v3.RouteConfiguration", 6, stops_at_first=True)
VIRTUAL_HOST = ResourceType("virtual_host", "VHDS", "envoy.config.route.v3.VirtualHost", 7)
RUNTIME = ResourceType("runtime", "RTDS", "envoy.service.runtime.v3.Runtime", 8)

TYPES: tuple[ResourceType, ...] = (
    CLUSTER,
    ENDPOINT,
    SECRET,
    EXTENSION_CONFIG,
    LISTENER,
    SCOPED_ROUTE,
    ROUTE,
    VIRTUAL_HOST,
    RUNTIME,
)
"""In the order of make before break."""

BREAKS_FROM = LISTENER.order
"""Types from here on refer to earlier types: they wait until the client has acknowledged those."""

BY_URL = {type_.url: type_ for type_ in TYPES}
BY_SHORT = {type_.short.lower(): type_ for type_ in TYPES}


def custom(name: str, message: str, *, order: int = 9) -> ResourceType:
    """Return a type of your own. `message` is the full name of its protobuf message.

    A type needs no registration: a stream serves every type that a snapshot holds.
    """
    return ResourceType(name, name, message, order)


def of_url(url: str) -> ResourceType:
    """Return the type of a type URL; a custom type if the table does not have it."""
    message = url.rpartition("/")[2]
    return BY_URL.get(url) or custom(message.rpartition(".")[2], message)
