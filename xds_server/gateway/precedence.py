"""Conflicts of routes: routes that no request can distinguish, and routes that no request reaches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from filters.language import Problem
from xds_server.gateway.model.precedence_rank import Key, Keys, Ranked, shared
from xds_server.gateway.model.routes import Route

_BEGINNING = re.compile(r"~\^(/[\w/-]*)(\.\*)?\$?")
"""Regular expressions that state only how a path begins. Without ``.*``, the end must be open."""


def host_rank(host: str) -> tuple[bool, bool, int, str]:
    """Return the sort key of a host: exact, longest wildcard, all."""
    return (host == "*", host.startswith("*."), -len(host), host)


def conflicts(
    files: Sequence[Keys], routes: Mapping[str, Ranked], listeners: Iterable[str]
) -> Iterator[Problem]:
    """Yield an error for each route that no request can distinguish, and a warning if another always wins."""
    groups = shared(files)
    twins = dict(sorted(pair for members in groups.values() for pair in _twins(members)))
    for name, other in twins.items():
        message = f"no request can tell this route from '{other}'"
        remedy = "change its path, hosts, methods, headers or query, or remove one"
        yield Problem(path=("routes", name), message=message, remedy=remedy, at_key=True)
    regexes = dict.fromkeys(ranked for file in files for ranked in file.regexes)
    broad = [(ranked, start) for ranked in regexes if (start := _beginning(ranked.route)) is not None]
    suspects = dict.fromkeys(
        ranked for members in groups.values() for ranked in members if ranked.route.methods
    )
    every = sorted(listeners)
    for ranked in routes.values() if broad else suspects:
        winner = None if ranked.name in twins else _winner(ranked, groups, broad, every)
        if winner is not None:
            message = f"no request reaches this route: '{winner}' always wins"
            path = ("routes", ranked.name)
            yield Problem(path=path, message=message, remedy="remove it", at_key=True, severity="warning")


def _twins(members: list[Ranked]) -> Iterator[tuple[str, str]]:
    """Yield each route with the first route for the same methods, among routes with one condition on one host."""
    alike: dict[frozenset[str], list[Ranked]] = {}
    for ranked in members:
        alike.setdefault(ranked.methods, []).append(ranked)
    for group in alike.values():
        for number, ranked in enumerate(group):
            other = next((other for other in group[:number] if _meet(ranked.route, other.route)), None)
            if other is not None:
                yield ranked.name, other.name


def _meet(one: Route, other: Route) -> bool:
    return not one.listeners or not other.listeners or bool(set(one.listeners) & set(other.listeners))


def _winner(
    one: Ranked, groups: Mapping[Key, list[Ranked]], broad: list[tuple[Ranked, str]], listeners: list[str]
) -> str | None:
    """Return a route that wins for all requests of this one, or None."""
    first: Ranked | None = None
    for host in one.hosts:
        near = groups.get((host, one.condition), [])
        near = near + [other for other, start in broad if host in other.hosts and _begins(one.route, start)]
        better = [other for other in near if other.rank < one.rank and _wider(other, one)]
        for listener in one.route.listeners or listeners:
            here = [other for other in better if listener in (other.route.listeners or listeners)]
            taken = {method for other in here for method in other.route.methods}
            whole = [other for other in here if not other.route.methods]
            if not whole and not (one.route.methods and taken.issuperset(one.route.methods)):
                return None
            first = first or (whole or here)[0]
    return first.name if first else None


def _wider(one: Ranked, other: Ranked) -> bool:
    """True if every header and parameter condition of `one` is also a condition of `other`."""
    return bool(one.condition[2] <= other.condition[2] and one.condition[3] <= other.condition[3])


def _beginning(route: Route) -> str | None:
    """Return the beginning that a regular expression requires of a path, or None if it requires anything else."""
    value = route.path
    match = _BEGINNING.fullmatch(value)
    return match[1] if match and (match[2] or not value.endswith("$")) else None


def _begins(route: Route, start: str) -> bool:
    return route.match.kind == "prefix" and (route.match.value or "/").startswith(start)
