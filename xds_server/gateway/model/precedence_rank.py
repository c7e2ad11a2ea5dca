"""Precedence of routes: the most specific one wins, by the rules of the Gateway API's HTTPRoute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xds_server.gateway.model import hosts
from xds_server.gateway.model.routes import Route

Condition = tuple[Any, ...]
_KINDS = {"exact": 0, "template": 1, "regex": 2, "prefix": 3}
_NONE: frozenset[Any] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """A route with the values that decide between it and others, computed once.

    `condition` describes matching requests without the host, the listener and the method. `rank` sorts the routes of
    one host: the smaller rank wins.
    """

    name: str
    route: Route
    hosts: tuple[str, ...]
    methods: frozenset[str]
    condition: Condition
    rank: tuple[Any, ...]

    @property
    def refuses(self) -> bool:
        """True if a request with another method gets 405, unless another route matches."""
        return bool(self.methods) and self.route.wrong_method == 405


def ranked(routes: Mapping[str, Route]) -> dict[str, Ranked]:
    """Return all routes with their ranks."""
    return {
        name: Ranked(
            name, route, _hosts(route), frozenset(route.methods), _condition(route), _rank(name, route)
        )
        for name, route in routes.items()
    }


Key = tuple[str, Condition]
"""A host and a condition. Only listener and method can distinguish routes with the same key."""


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """The routes of one file by key. `crowded` are keys with several routes; `regexes` are routes with such a path."""

    routes: Mapping[Key, list[Ranked]]
    every: frozenset[Key]
    crowded: tuple[Key, ...]
    regexes: tuple[Ranked, ...]

    @classmethod
    def of(cls, routes: Iterable[Ranked]) -> Keys:
        """Return the routes sorted by key."""
        by_key: dict[Key, list[Ranked]] = {}
        for route in routes:
            for host in route.hosts:
                by_key.setdefault((host, route.condition), []).append(route)
        crowded = tuple(key for key, members in by_key.items() if len(members) > 1)
        regexes = tuple(
            ranked for members in by_key.values() for ranked in members if ranked.route.path[0] == "~"
        )
        return cls(by_key, frozenset(by_key), crowded, regexes)


def shared(files: Sequence[Keys]) -> dict[Key, list[Ranked]]:
    """Return the keys that several routes have.

    The sets of keys are joined without a loop over keys that only one file has.
    """
    seen: set[Key] = set()
    common: set[Key] = set()
    for file in files:
        common |= seen & file.every
        seen |= file.every
    by_key: dict[Key, list[Ranked]] = {}
    for file in files:
        for key in (common & file.every).union(file.crowded):
            by_key.setdefault(key, []).extend(file.routes[key])
    return by_key


def _rank(name: str, route: Route) -> tuple[Any, ...]:
    """Return the rank of a route.

    The order is: exact path, template, regex, longest prefix; then a method, the number of headers, of query
    parameters, the route's `order`, the name. Among templates, the one with more literal text wins; among regular expressions, the longer
    one.
    """
    match = route.match
    literal = len(match.value) - sum(len(part) + 2 for part in match.names)
    return (
        _KINDS[match.kind],
        -literal,
        not route.methods,
        -len(route.headers),
        -len(route.query),
        route.order,
        name,
    )


def _hosts(route: Route) -> tuple[str, ...]:
    """Return the hosts of a route as Envoy compares them."""
    return hosts.of(route.hosts)


def _condition(route: Route) -> Condition:
    match = route.match
    path = match.regex if match.kind == "template" else match.value
    headers = (
        frozenset((name.lower(), match_of_name) for name, match_of_name in route.headers.items())
        if route.headers
        else _NONE
    )
    return (match.kind, path, headers, frozenset(route.query.items()) if route.query else _NONE)
