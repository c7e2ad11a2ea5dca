"""Route configurations, updated incrementally: a changed route costs the work of its own virtual hosts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Iterable, Mapping
from operator import attrgetter
from typing import Any

from filters.policy import Context
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.policies import merge
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.translate import routes, virtual_hosts

Translate = Callable[[Ranked, Mapping[str, Any], Context], Iterable[bytes]]
"""The serialized routes of a route with its effective policies."""

_rank = attrgetter("rank")


class RouteTables:
    """Keeps the serialized parts of route configurations while their inputs stay the same objects."""

    def __init__(self, translate: Translate) -> None:
        self._translate = translate
        self._parts: dict[Ranked, tuple[Mapping[str, Any], object, bytes]] = {}
        self._order: dict[str, list[Ranked]] = {}
        self._hosts: dict[str, dict[str, tuple[list[Ranked], list[bytes], bytes]]] = {}
        self._refusals: dict[tuple[Ranked, frozenset[str]], tuple[Mapping[str, Any], object, bytes]] = {}
        self._context = Context()
        self._not_found = b""

    def update(self, gateway: Gateway, surroundings: object) -> None:
        """Translate the routes that are new, or whose policies or `surroundings` are."""
        parts: dict[Ranked, tuple[Mapping[str, Any], object, bytes]] = {}
        old, policies = self._parts.get, gateway.policies
        for name, one in gateway.ranked.items():
            settings, known = policies[name], old(one)
            if known is None or known[0] is not settings or known[1] is not surroundings:
                body = virtual_hosts.joined(self._translate(one, settings, gateway.context))
                known = (settings, surroundings, body)
            parts[one] = known
        self._parts, self._context = parts, gateway.context
        shared = routes.for_pages("", merge(("gateway", gateway.sections.policies)), gateway.context)
        self._not_found = virtual_hosts.joined(routes.not_found(shared))
        self._refusals = {key: body for key, body in self._refusals.items() if key[0] in parts}

    def hosts(self, listener: str) -> list[bytes]:
        """Return the serialized virtual hosts of a listener."""
        old, parts = self._hosts.get(listener, {}), self._parts
        hosts = self._hosts[listener] = {}
        for host, members in virtual_hosts.of_hosts(self._ordered(listener)).items():
            bodies = [parts[one][2] for one in members]
            known = old.get(host)
            if known is None or known[0] != members or known[1] != [*bodies, self._not_found]:
                known = (members, [*bodies, self._not_found], self._host(host, members, bodies))
            hosts[host] = known
        # An authority that is none of these may still have to be rejected.
        others = () if "*" in hosts else (virtual_hosts.virtual_host("*", [self._not_found]),)
        return [*(body for _, _, body in hosts.values()), *others]

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

    def _host(self, host: str, members: list[Ranked], bodies: list[bytes]) -> bytes:
        last = [self._refusal(one, methods) for one, methods in virtual_hosts.fallbacks(members)]
        return virtual_hosts.virtual_host(host, [*bodies, *last, self._not_found])

    def _refusal(self, ranked: Ranked, methods: frozenset[str]) -> bytes:
        """Return the 405 of a route."""
        settings, surroundings, _ = self._parts[ranked]
        known = self._refusals.get((ranked, methods))
        if known is None or known[0] is not settings or known[1] is not surroundings:
            parts = routes.for_pages(ranked.name, settings, self._context)
            body = virtual_hosts.joined([routes.not_allowed(ranked.name, ranked.route, methods, parts)])
            known = self._refusals[ranked, methods] = (settings, surroundings, body)
        return known[2]
