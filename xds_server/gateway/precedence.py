"""Which of several routes wins: the most specific one, by the rules of the Gateway API's HTTPRoute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from filters.language import Problem
from xds_server.gateway.model.routes import Route

_KINDS = {"exact": 0, "template": 1, "regex": 2, "prefix": 3}


def rank(name: str, route: Route) -> tuple[Any, ...]:
    """Sort key of a route within one host: the smaller wins.

    Exact path, template, regex, longest prefix; then a method, the number of headers, of query parameters, the
    name. Among templates the one with more literal text wins, among regular expressions the longer one.
    """
    match = route.match
    literal = len(match.value) - sum(len(part) + 2 for part in match.names)
    return (
        _KINDS[match.kind],
        -literal,
        not route.methods,
        -len(route.headers),
        -len(route.query),
        name,
    )


def host_rank(host: str) -> tuple[Any, ...]:
    """Sort key of a host: exact, longest wildcard, all."""
    return (host == "*", host.startswith("*."), -len(host), host)


def _condition(route: Route) -> tuple[Any, ...]:
    headers = (
        tuple(sorted((name.lower(), match) for name, match in route.headers.items())) if route.headers else ()
    )
    query = tuple(sorted(route.query.items(), key=lambda item: item[0])) if route.query else ()
    return (route.path, frozenset(route.methods), _hashable(headers), _hashable(query))


def _hashable(pairs: tuple[tuple[str, Any], ...]) -> tuple[Any, ...]:
    return tuple(
        (
            name,
            match.exact,
            match.prefix,
            match.suffix,
            match.contains,
            match.regex,
            match.present,
            match.invert,
        )
        for name, match in pairs
    )


def conflicts(routes: Mapping[str, Route]) -> Iterator[Problem]:
    """Two routes that no request can tell apart; routes that another one always shadows."""
    seen: dict[tuple[Any, ...], list[str]] = {}
    for name, route in routes.items():
        seen.setdefault(_condition(route), []).append(name)
    for names in seen.values():
        for number, name in enumerate(names[1:], 1):
            for other in names[:number]:
                if _meet(routes[name], routes[other]):
                    yield Problem(
                        path=("routes", name),
                        message=f"no request can tell this route from '{other}'",
                        remedy="change its path, hosts, methods, headers or query, or remove one",
                        at_key=True,
                    )
                    break
    yield from _shadowed(routes)


def _meet(one: Route, other: Route) -> bool:
    listeners = not one.listeners or not other.listeners or set(one.listeners) & set(other.listeners)
    hosts = set(map(str.lower, one.hosts or ("*",))) & set(map(str.lower, other.hosts or ("*",)))
    return bool(listeners and hosts)


def _shadowed(routes: Mapping[str, Route]) -> Iterator[Problem]:
    """Warn where methods, split over routes with the same conditions otherwise, leave a route nothing."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, route in routes.items():
        path, _, headers, query = _condition(route)
        groups.setdefault((path, headers, query), []).append(name)
    for names in groups.values():
        for name in names if len(names) > 1 else ():
            others = [other for other in names if other != name and _covers(routes[other], routes[name])]
            methods = set(routes[name].methods)
            taken = {method for other in others for method in routes[other].methods}
            if (
                methods
                and others
                and methods <= taken
                and all(rank(o, routes[o]) < rank(name, routes[name]) for o in others)
            ):
                message = f"'{others[0]}' always wins over this route"
                yield Problem(
                    path=("routes", name),
                    message=message,
                    remedy="remove it",
                    at_key=True,
                    severity="warning",
                )


def _covers(one: Route, other: Route) -> bool:
    hosts = set(one.hosts or ("*",)) >= set(other.hosts or ("*",))
    return hosts and (not one.listeners or set(one.listeners) >= set(other.listeners) > set())
