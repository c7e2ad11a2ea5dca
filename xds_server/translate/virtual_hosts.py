"""Virtual hosts: which routes each host has, in their order, joined from serialized parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from operator import attrgetter

from envoy.config.route.v3 import route_components_pb2, route_pb2

from filters.policy import header
from xds_server.gateway import precedence
from xds_server.gateway.model.paths import PathMatch
from xds_server.gateway.model.ranks import Ranked
from xds_server.translate import names
from xds_server.translate.wire import delimited, uint32

_VIRTUAL_HOSTS = route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER
_ROUTES = route_components_pb2.VirtualHost.ROUTES_FIELD_NUMBER


def selected(routes: Iterable[Ranked], listener: str) -> list[Ranked]:
    """The routes of a listener."""
    return [one for one in routes if not one.route.listeners or listener in one.route.listeners]


def by_host(routes: Iterable[Ranked]) -> dict[str, list[Ranked]]:
    """Each host's routes in the order in which they are tried.

    Envoy picks one virtual host and never looks into another. So a host has its own routes first, then those of
    the wildcards that cover it, then those for all hosts.
    """
    return of_hosts(sorted(routes, key=attrgetter("rank")))


def of_hosts(ordered: Iterable[Ranked]) -> dict[str, list[Ranked]]:
    """As above, of routes that are in the order of their ranks."""
    own: dict[str, list[Ranked]] = {}
    for one in ordered:
        for host in one.hosts:
            own.setdefault(host, []).append(one)
    result: dict[str, list[Ranked]] = {}
    for host in sorted(own, key=precedence.host_rank):
        wider = [one for wildcard in _wildcards(host) for one in own.get(wildcard, ())]
        result[host] = list(dict.fromkeys((*own[host], *wider))) if wider else own[host]
    return result


def _wildcards(host: str) -> Iterable[str]:
    """The wildcards that cover a host, longest first."""
    labels = host.removeprefix("*.").split(".")
    start = 0 if host.startswith("*.") else 1
    if host != "*":
        for number in range(start, len(labels)):
            wildcard = "*." + ".".join(labels[number:])
            if wildcard != host:
                yield wildcard
        yield "*"


def fallbacks(members: Iterable[Ranked]) -> tuple[tuple[Ranked, frozenset[str]], ...]:
    """For which routes a 405 stands at the end, and the methods that it allows."""
    by_condition: dict[object, tuple[Ranked, set[str]]] = {}
    for one in members:
        if one.route.methods:
            by_condition.setdefault(one.condition, (one, set()))[1].update(one.route.methods)
    groups = [(one, one.route.match, methods) for one, methods in by_condition.values()]
    broad = _Broad((match, methods) for _, match, methods in groups)
    return tuple([(one, frozenset(methods | broad.methods(match))) for one, match, methods in groups])


class _Broad:
    """Paths that may cover other ones, found without looking at each: a host may have thousands of routes."""

    def __init__(self, found: Iterable[tuple[PathMatch, set[str]]]) -> None:
        self._prefixes: dict[str, set[str]] = {}
        self._above: dict[str, set[str]] = {}
        self._templates: dict[tuple[int, str], list[tuple[PathMatch, set[str]]]] = {}
        self._regexes: list[tuple[PathMatch, set[str]]] = []
        for match, methods in found:
            if match.kind == "prefix":
                self._prefixes.setdefault(match.value, set()).update(methods)
                self._above.setdefault(match.value.rstrip("/"), set()).update(methods)
            elif match.kind == "template":
                key = (match.value.count("/"), match.value.partition("{")[0])
                self._templates.setdefault(key, []).append((match, methods))
            elif match.kind == "regex":
                self._regexes.append((match, methods))

    def methods(self, match: PathMatch) -> set[str]:
        """The methods of all paths that cover `match`; where that is not easily told, they do not."""
        if match.kind == "regex":
            return set()
        found = set(self._prefixes.get(match.value, ()))
        end = match.value.rfind("/")
        while end >= 0:
            found.update(self._above.get(match.value[:end], ()))
            end = match.value.rfind("/", 0, end)
        if match.kind == "exact":
            found.update(*(methods for other, methods in self._patterns(match) if _fits(other, match)))
        return found

    def _patterns(self, match: PathMatch) -> Iterator[tuple[PathMatch, set[str]]]:
        slashes, end = match.value.count("/"), match.value.rfind("/")
        while end >= 0:
            yield from self._templates.get((slashes, match.value[: end + 1]), ())
            end = match.value.rfind("/", 0, end)
        yield from self._regexes


def _fits(pattern: PathMatch, exact: PathMatch) -> bool:
    try:
        return re.fullmatch(pattern.regex, exact.value) is not None
    except re.error:
        return False


def virtual_host(host: str, parts: Iterable[bytes]) -> bytes:
    """A serialized VirtualHost of parts, each of them routes as `joined` makes them."""
    head = route_components_pb2.VirtualHost(name=host, domains=[host])
    return head.SerializeToString(deterministic=True) + b"".join(parts)


def joined(bodies: Iterable[bytes]) -> bytes:
    """Serialized routes as they stand in a virtual host."""
    return b"".join([delimited(_ROUTES, body) for body in bodies])


def route_configuration(listener: str, alt_svc: str | None, hosts: Iterable[bytes]) -> bytes:
    """A serialized RouteConfiguration of serialized virtual hosts."""
    head = route_pb2.RouteConfiguration(
        name=names.routes(listener),
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes=uint32(1 << 20),
    )
    if alt_svc is not None:
        head.response_headers_to_add.append(header("alt-svc", alt_svc))
    return head.SerializeToString(deterministic=True) + b"".join(
        delimited(_VIRTUAL_HOSTS, one) for one in hosts
    )
