"""What a route object does at each of its Gateways, and why a part of it does nothing. It does no IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from xds_server.gateway_api.cluster import ROUTE_KINDS, Cluster
from xds_server.gateway_api.conditions import Condition, RouteStatus
from xds_server.gateway_api.listeners import listener_states
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.placement import PlacedRoute, placed_routes
from xds_server.gateway_api.translation import Translation
from xds_server.gateway_api.upstreams import endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A condition of a route on a listener of a Gateway with one host, which is empty for all of them.

    `taken_by` is the older route that has the same condition, "" if this one takes the requests.
    """

    gateway: str
    listener: str
    host: str
    condition: str
    taken_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A parent of a route, with its conditions."""

    name: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A Service of a route, with the number of endpoints that get requests, None if it has no EndpointSlices."""

    service: str
    port: int
    endpoints: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What one route object does. Without parents, no Gateway that is served here has it."""

    route: str
    parents: tuple[Parent, ...]
    matches: tuple[Match, ...]
    backends: tuple[Backend, ...]

    @property
    def complete(self) -> bool:
        """True if every part of the route has an effect."""
        wrong = any(
            one.status == (one.type == "PartiallyInvalid")
            for parent in self.parents
            for one in parent.conditions
            if one.type in ("Accepted", "ResolvedRefs", "PartiallyInvalid")
        )
        lost = any(one.taken_by for one in self.matches)
        return (
            bool(self.parents) and not wrong and not lost and all(one.endpoints != 0 for one in self.backends)
        )


def effects(kind: str, key: Key, translation: Translation, cluster: Cluster) -> Effects | None:
    """Return what a route of the cluster does, None if there is no such route. `translation` is that of the cluster."""
    route = next((one for one in cluster.routes() if (one.kind, one.meta.key) == (kind, key)), None)
    if route is None:
        return None
    status = next((one for one in translation.route_statuses if (one.kind, one.key) == (kind, key)), None)
    ours = [one for one in map(cluster.gateway, sorted(translation.gateways)) if one is not None]
    listeners = {one.meta.key: listener_states(one, cluster) for one in ours}
    placed = list(placed_routes(listeners, cluster))
    own = next((one for one in placed if one.route is route), None)
    return Effects(
        route=f"{kind} {route.meta}",
        parents=tuple(_parents(status, key[0])),
        matches=tuple(_matches(own, placed)) if own is not None else (),
        backends=tuple(_backends(own, cluster)) if own is not None else (),
    )


def known(cluster: Cluster) -> Iterator[str]:
    """Yield the routes of a cluster as `effects` takes them: KIND/NAMESPACE/NAME."""
    for kind in ROUTE_KINDS:
        for one in cluster.all(kind):
            yield "/".join((kind, *one.meta.key))


def _parents(status: RouteStatus | None, namespace: str) -> Iterator[Parent]:
    for one in status.parents if status is not None else ():
        parent = one.parent
        at = "".join(
            f", {what} {value}"
            for what, value in (("listener", parent.section_name), ("port", parent.port))
            if value is not None
        )
        name = f"{parent.kind} {parent.namespace or namespace}/{parent.name}{at}"
        yield Parent(name=name, conditions=one.conditions)


def _matches(own: PlacedRoute, placed: list[PlacedRoute]) -> Iterator[Match]:
    for gateway, place in sorted(own.places.items()):
        hostnames = {
            listener.name: listener.hostname for one in place.attachments for listener, _ in one.listeners
        }
        claims: dict[Any, list[_Claim]] = {}
        for one in [one for one in placed if gateway in one.places]:
            for listener, condition, host, _ in _conditions(one, gateway):
                claims.setdefault((listener, condition), []).append(_Claim(host, one))
        for listener, condition, host, values in _conditions(own, gateway):
            winner = _winner(claims[listener, condition], host, hostnames[listener])
            yield Match(
                gateway="/".join(gateway),
                listener=listener,
                host=host,
                condition=_text(values),
                taken_by="" if winner is own else f"{winner.route.kind} {winner.route.meta}",
            )


class _Claim(NamedTuple):
    """A route that wants the requests for a host."""

    host: str
    placed: PlacedRoute


def _conditions(one: PlacedRoute, gateway: Key) -> Iterator[tuple[str, Any, str, Mapping[str, Any]]]:
    for condition, values in one.translated.routes.values():
        for listener, hosts in one.places[gateway].hosts.items():
            for host in hosts:
                yield listener, condition, host, values


def _winner(claims: list[_Claim], host: str, hostname: str) -> PlacedRoute:
    """Return the route that gets the requests for a host among those with one condition, the oldest first.

    If the listener has one host only, all of them are for it, and the route with the most specific host of its own wins.
    """
    if not hostname or hostname.startswith("*"):
        return next(one.placed for one in claims if one.host == host)
    return max(claims, key=lambda one: (bool(one.host), not one.host.startswith("*"), len(one.host))).placed


def _text(values: Mapping[str, Any]) -> str:
    """Return the condition of a route of the language in words."""
    path = values.get("path", "every path")
    if isinstance(path, Mapping):
        path = " ".join(f"{how} {what}" for how, what in path.items())
    methods = [" or ".join(values["methods"])] if "methods" in values else []
    more = [
        f"{what} {', '.join(map(str, values[what]))}" for what in ("headers", "query") if values.get(what)
    ]
    return "; ".join([" ".join([*methods, str(path)]), *more])


def _backends(own: PlacedRoute, cluster: Cluster) -> Iterator[Backend]:
    for upstream in own.translated.upstreams:
        service = cluster.service(upstream.service)
        slices = cluster.slices(upstream.service)
        count = len(endpoints(service, upstream.port, slices)) if service is not None and slices else None
        yield Backend(service="/".join(upstream.service), port=upstream.port, endpoints=count)
