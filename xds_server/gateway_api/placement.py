"""Routes at their Gateways: to which listeners they attach, with which hosts, and what they are in the gateway language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from xds_server.gateway_api import attachment, rules
from xds_server.gateway_api.attachment import Attachment
from xds_server.gateway_api.cluster import Cluster, Route
from xds_server.gateway_api.conditions import accepted
from xds_server.gateway_api.listeners import ListenerState
from xds_server.gateway_api.memory import remembered
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.rules import Translated
from xds_server.gateway_api.upstreams import ServiceUpstream

Listeners = Mapping[Key, tuple[ListenerState, ...]]
"""The listeners of each Gateway."""


@dataclass(frozen=True, eq=False)
class Place:
    """A route at one Gateway. `hosts` are those that it takes, by the name of the listener in the language."""

    attachments: tuple[Attachment, ...]
    hosts: Mapping[str, tuple[str, ...]]
    listeners: frozenset[str] = field(default_factory=frozenset)
    """The names of all listeners that it attaches to, also of those that are not served."""


@dataclass(frozen=True, eq=False)
class PlacedRoute:
    """A route with its places by Gateway, in the order of its references. It is the same object while nothing of it changes."""

    route: Route
    places: Mapping[Key, Place]
    translated: Translated

    @cached_property
    def file(self) -> str:
        """The name of the file with its routes of the language."""
        return file_of(self.route)

    @cached_property
    def upstreams(self) -> Mapping[str, ServiceUpstream]:
        """The upstreams that its routes use, by name."""
        return {one.name: one for one in self.translated.upstreams if one.usable}


def file_of(route: Route) -> str:
    """Return the name of the file with the routes of the language that are made of a route."""
    return f"{route.kind}/{'/'.join(route.meta.key)}.yaml"


def placed_routes(listeners: Listeners, cluster: Cluster) -> Iterator[PlacedRoute]:
    """Yield the routes that refer to some of these Gateways, in the order of their precedence."""
    same = cluster.memory.table(placed_routes)
    for route in cluster.routes():
        every = (attachment.gateway_of(parent, route, cluster) for parent in route.spec.parent_refs)
        keys = tuple(key for key in every if key is not None and key in listeners)
        if keys:
            wanted = {key: listeners[key] for key in keys}
            if same.get(keys) != wanted:
                same[keys] = wanted
            try:
                placed = place(route, same[keys], cluster)
            except Exception as error:  # noqa: BLE001 - one object must not keep all others from being served
                placed = _failed(route, same[keys], error, cluster)
            yield placed


@remembered
def place(route: Route, listeners: Listeners, cluster: Cluster) -> PlacedRoute:
    """Return a route at the Gateways that it refers to, with the listeners of these."""
    some: dict[Key, list[Attachment]] = {}
    for parent in route.spec.parent_refs:
        key = attachment.gateway_of(parent, route, cluster)
        if key is not None and key in listeners:
            some.setdefault(key, []).append(attachment.attach(route, parent, listeners[key], cluster))
    places = {key: _place(attachments) for key, attachments in some.items()}
    return PlacedRoute(route, places, rules.translate(route, frozenset(), cluster))


def _failed(route: Route, listeners: Listeners, error: Exception, cluster: Cluster) -> PlacedRoute:
    """Return a route that takes no requests because of a fault of ours."""
    wrong = accepted("UnsupportedValue", f"a fault of xds, please report it: {error!r}")
    places: dict[Key, Place] = {}
    for parent in route.spec.parent_refs:
        key = attachment.gateway_of(parent, route, cluster)
        if key is not None and key in listeners:
            places.setdefault(key, _place([Attachment(parent=parent, accepted=wrong, listeners=())]))
    return PlacedRoute(route, places, Translated(section="routes", routes={}, upstreams=(), faults=()))


def _place(attachments: Iterable[Attachment]) -> Place:
    attachments = tuple(attachments)
    hosts: dict[str, dict[str, None]] = {}
    every = [pair for one in attachments for pair in one.listeners]
    for listener, some in every:
        if listener.served:
            hosts.setdefault(listener.name, {}).update(dict.fromkeys(some))
    return Place(
        attachments=attachments,
        hosts={name: tuple(some) for name, some in hosts.items()},
        listeners=frozenset(listener.name for listener, _ in every),
    )
