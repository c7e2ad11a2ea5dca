"""The files of route objects in the gateway language: each route on the listeners where no older one has its condition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from xds_server.gateway_api import names
from xds_server.gateway_api.filters import LISTENER_PORT
from xds_server.gateway_api.gateway_files import failing
from xds_server.gateway_api.placement import Place, PlacedRoute
from xds_server.gateway_api.policies import GatewayPolicies, Level

_Ports = Mapping[str, int | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """The file of a route whose conditions no other route had: it is the same as long as this is so."""

    placed: PlacedRoute
    ports: _Ports
    claims: frozenset[Any]
    values: Mapping[str, Any] | None


class RouteFiles:
    """The files of the routes of one Gateway, which are added in the order of their precedence.

    `ports` are those that the redirects of each listener go to. `known` is a table that an earlier translation filled.
    """

    def __init__(self, ports: _Ports, policies: GatewayPolicies, known: dict[Any, Any]) -> None:
        self._ports, self._policies = ports, policies
        self._before, self._known = dict(known), known
        self._known.clear()
        self._taken: set[Any] = set()

    def of(self, placed: PlacedRoute, place: Place) -> Mapping[str, Any] | None:
        """Return the file of a route, or None if it takes no requests."""
        if self._policies.concern(placed.route):
            return self._made(placed, place)
        known = self._before.get(id(placed))
        if known is None or known.ports != self._ports or not self._taken.isdisjoint(known.claims):
            claims = _claims(placed, place)
            free = self._taken.isdisjoint(claims)
            values = self._made(placed, place)
            if not free:
                return values
            known = _Known(placed, self._ports, claims, values)
        self._taken |= known.claims
        self._known[id(placed)] = known
        return known.values

    def _made(self, placed: PlacedRoute, place: Place) -> Mapping[str, Any] | None:
        found = placed.translated
        routes = {
            name: value
            for route_name, (condition, values) in found.routes.items()
            for name, value in on_listeners(
                route_name,
                values,
                condition,
                place.hosts,
                self._ports,
                self._taken,
                partial(self._policies.level, placed.route, found.rule_names.get(route_name)),
            )
        }
        return {found.section: routes} if routes else None


def _claims(placed: PlacedRoute, place: Place) -> frozenset[Any]:
    """Return what the routes of an object take of each listener."""
    return frozenset(
        (listener, host, condition)
        for condition, _ in placed.translated.routes.values()
        for listener, hosts in place.hosts.items()
        for host in hosts
    )


def on_listeners(
    name: str,
    values: Mapping[str, Any],
    condition: Any,
    hosts: Mapping[str, tuple[str, ...]],
    ports: _Ports,
    taken: set[Any],
    level: Callable[[str], Level] = lambda _listener: Level(),
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield a route for each set of listeners on which it takes the same hosts, and does the same.

    What an older route with the same condition has already is left out: the older one wins.
    """
    groups: dict[tuple[tuple[str, ...], int | None, Level], list[str]] = {}
    to_port = values.get("redirect", {}).get("port") == LISTENER_PORT
    for listener, some in hosts.items():
        free = tuple(one for one in some if (listener, one, condition) not in taken)
        taken.update((listener, one, condition) for one in free)
        if free:
            port = ports[listener] if to_port else None
            groups.setdefault((free, port, level(listener)), []).append(listener)
    for number, ((free, port, policies), listeners) in enumerate(groups.items()):
        own = name if not number else names.of(name, str(number))
        key = "server_names" if condition == "stream" else "hosts"
        where = {"listeners": sorted(listeners), **({key: list(free)} if "" not in free else {})}
        redirect = {"redirect": _with_port(values["redirect"], port)} if to_port else {}
        found = {**where, **values, **redirect, **({"use": [*policies.use]} if policies.use else {})}
        section = "stream_routes" if condition == "stream" else "routes"
        yield own, failing(found, section) if policies.closed else found


def _with_port(redirect: Mapping[str, Any], port: int | None) -> Mapping[str, Any]:
    """Return a redirect to a port, None for the one that its scheme implies."""
    rest = {key: value for key, value in redirect.items() if key != "port"}
    return rest if port is None else {**rest, "port": port}
