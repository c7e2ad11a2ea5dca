"""Route configurations, updated incrementally: a changed route costs the work of its own virtual hosts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

from filters.policy import Context
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.policies import merge
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.translate import routes, virtual_hosts
from xds_server.translate.route_trees import DEFAULT, Entry, RouteTree, Shape

Translate = Callable[[Ranked, Mapping[str, Any], Context], Iterable[bytes]]
"""The serialized routes of a route with its effective policies."""

_rank = attrgetter("rank")


@dataclass(slots=True, eq=False)
class _Part:
    """The serialized routes of a route and what they were made from, and what a tree needs to know of them."""

    settings: Mapping[str, Any]
    surroundings: object
    body: bytes
    _entries: tuple[Entry, ...] | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The same routes as entries of a tree, which only hosts with many routes need."""
        if self._entries is None:
            self._entries = virtual_hosts.entries(self.body)
        return self._entries


@dataclass(frozen=True, slots=True, eq=False)
class _Host:
    """A serialized virtual host and what it was made from.

    `obstacles` are the names of the routes because of which Envoy tries many routes one after the other.
    """

    members: list[Ranked]
    bodies: list[bytes]
    body: bytes
    tree: RouteTree
    obstacles: tuple[str, ...] = ()


class RouteTables:
    """Keeps the serialized parts of route configurations while their inputs stay the same objects.

    `shape` says which hosts get a tree instead of a list.
    """

    def __init__(self, translate: Translate, shape: Shape = DEFAULT) -> None:
        self._translate, self._shape = translate, shape
        self._parts: dict[Ranked, _Part] = {}
        self._order: dict[str, list[Ranked]] = {}
        self._hosts: dict[str, dict[str, _Host]] = {}
        self._refusals: dict[tuple[Ranked, frozenset[str]], _Part] = {}
        self._context = Context()
        self._not_found = _Part({}, None, b"")

    def update(self, gateway: Gateway, surroundings: object) -> None:
        """Translate the routes that are new, or whose policies or `surroundings` are."""
        parts: dict[Ranked, _Part] = {}
        old, policies = self._parts.get, gateway.policies
        for name, one in gateway.ranked.items():
            settings, known = policies[name], old(one)
            if known is None or known.settings is not settings or known.surroundings is not surroundings:
                body = virtual_hosts.joined(self._translate(one, settings, gateway.context))
                known = _Part(settings, surroundings, body)
            parts[one] = known
        self._parts, self._context = parts, gateway.context
        shared = routes.for_pages("", merge(("gateway", gateway.sections.policies)), gateway.context)
        not_found = virtual_hosts.joined(routes.not_found(shared))
        if self._not_found.body != not_found:
            self._not_found = _Part({}, None, not_found)
        self._refusals = {key: part for key, part in self._refusals.items() if key[0] in parts}

    def hosts(self, listener: str) -> list[bytes]:
        """Return the serialized virtual hosts of a listener."""
        old, parts = self._hosts.get(listener, {}), self._parts
        hosts = self._hosts[listener] = {}
        for host, members in virtual_hosts.of_hosts(self._ordered(listener)).items():
            bodies = [*(parts[one].body for one in members), self._not_found.body]
            known = old.get(host)
            if known is None or known.members != members or known.bodies != bodies:
                tree = known.tree if known is not None else virtual_hosts.tree(host, self._shape)
                known = self._host(host, members, bodies, tree)
            hosts[host] = known
        # An authority that is none of these may still have to be rejected.
        others = () if "*" in hosts else (virtual_hosts.virtual_host("*", [self._not_found.body]),)
        return [*(one.body for one in hosts.values()), *others]

    def obstacles(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the routes because of which Envoy tries many routes one after the other, by host."""
        every = (pair for hosts in self._hosts.values() for pair in hosts.items())
        return {name: host.obstacles for name, host in every if host.obstacles}

    def forget(self, listeners: Container[str]) -> None:
        """Drop the parts of listeners that no longer exist."""
        for name in [name for name in self._order if name not in listeners]:
            del self._order[name], self._hosts[name]

    def _ordered(self, listener: str) -> list[Ranked]:
        """Return the routes of a listener by rank. Few new routes are inserted into the known order."""
        current = set(virtual_hosts.selected(self._parts, listener))
        order = [one for one in self._order.get(listener, ()) if one in current]
        new = current.difference(order)
        if len(new) * 8 > len(order):
            order = sorted(current, key=_rank)
        else:
            for one in new:
                insort(order, one, key=_rank)
        self._order[listener] = order
        return order

    def _host(self, host: str, members: list[Ranked], bodies: list[bytes], tree: RouteTree) -> _Host:
        refusals = [(one, self._refusal(one, methods)) for one, methods in virtual_hosts.fallbacks(members)]
        parts = [*bodies[:-1], *(part.body for _, part in refusals), self._not_found.body]
        if len(members) < self._shape.fewest:
            return _Host(members, bodies, virtual_hosts.virtual_host(host, parts), tree)
        found = [(one.name, self._parts[one].entries) for one in members]
        found += [(one.name, part.entries) for one, part in refusals]
        matcher = tree.matcher([*chain.from_iterable(some for _, some in found), *self._not_found.entries])
        owners = [name for name, some in found for _ in some] if tree.obstacles else []
        obstacles = tuple(dict.fromkeys(owners[at] for at in tree.obstacles if at < len(owners)))
        if matcher is None:
            return _Host(members, bodies, virtual_hosts.virtual_host(host, parts), tree, obstacles)
        return _Host(members, bodies, virtual_hosts.virtual_host_with_tree(host, matcher), tree, obstacles)

    def _refusal(self, ranked: Ranked, methods: frozenset[str]) -> _Part:
        """Return the 405 of a route."""
        part = self._parts[ranked]
        known = self._refusals.get((ranked, methods))
        if (
            known is None
            or known.settings is not part.settings
            or known.surroundings is not part.surroundings
        ):
            parts = routes.for_pages(ranked.name, part.settings, self._context)
            body = virtual_hosts.joined([routes.not_allowed(ranked.name, ranked.route, methods, parts)])
            known = self._refusals[ranked, methods] = _Part(part.settings, part.surroundings, body)
        return known
