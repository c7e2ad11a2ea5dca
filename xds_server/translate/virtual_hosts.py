"""Virtual hosts: which routes each host has, in their order, joined from serialized parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from envoy.config.route.v3 import route_components_pb2, route_pb2

from filters.policy import header
from xds_server.gateway import precedence
from xds_server.gateway.model.paths import PathMatch
from xds_server.gateway.model.routes import Route
from xds_server.translate import names, routes
from xds_server.translate.wire import delimited, uint32

_VIRTUAL_HOSTS = route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER
_ROUTES = route_components_pb2.VirtualHost.ROUTES_FIELD_NUMBER

Hosts = Mapping[str, tuple[str, ...]]


def by_host(selected: Mapping[str, Route]) -> dict[str, list[str]]:
    """The names of each host's routes in the order in which they are tried.

    Envoy picks one virtual host and never looks into another. So a host has its own routes first, then those of
    the wildcards that cover it, then those for all hosts.
    """
    own: dict[str, list[tuple[object, str]]] = {}
    for name, route in selected.items():
        key = precedence.rank(name, route)
        for host in dict.fromkeys(one.lower() for one in route.hosts) or ("*",):
            own.setdefault(host, []).append((key, name))
    ordered = {host: [name for _, name in sorted(members)] for host, members in own.items()}
    result: dict[str, list[str]] = {}
    for host in sorted(ordered, key=precedence.host_rank):
        members = list(ordered[host])
        for wildcard in _wildcards(host):
            members += ordered.get(wildcard, ())
        result[host] = list(dict.fromkeys(members))
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


def fallbacks(
    members: Iterable[str], selected: Mapping[str, Route]
) -> tuple[tuple[str, frozenset[str]], ...]:
    """For which routes a 405 stands at the end, and the methods that it allows."""
    restricted = [(name, selected[name]) for name in members if selected[name].methods]
    by_condition: dict[object, tuple[str, set[str]]] = {}
    for name, route in restricted:
        condition = (
            route.path,
            *((key, repr(match)) for key, match in sorted({**route.headers, **route.query}.items())),
        )
        by_condition.setdefault(condition, (name, set()))[1].update(route.methods)
    groups = list(by_condition.values())
    broad = [
        (selected[name].match, methods) for name, methods in groups if selected[name].match.kind != "exact"
    ]
    result = []
    for name, methods in groups:
        match = selected[name].match
        allowed = set(methods).union(*(more for other, more in broad if _covers(other, match)))
        result.append((name, frozenset(allowed)))
    return tuple(result)


def _covers(one: PathMatch, other: PathMatch) -> bool:
    """Whether every path of `other` is one of `one`; where that is not easily told, no."""
    if one.kind == "prefix" and other.kind in ("exact", "prefix", "template"):
        return other.value == one.value or other.value.startswith(one.value.rstrip("/") + "/")
    if one.kind in ("regex", "template") and other.kind == "exact":
        try:
            return re.fullmatch(one.regex, other.value) is not None
        except re.error:
            return False
    return False


def virtual_host(host: str, parts: Iterable[bytes]) -> bytes:
    """A serialized VirtualHost of serialized routes."""
    head = route_components_pb2.VirtualHost(name=host, domains=[host])
    return head.SerializeToString(deterministic=True) + b"".join(delimited(_ROUTES, part) for part in parts)


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


def not_allowed(found: Iterable[tuple[str, frozenset[str]]], selected: Mapping[str, Route]) -> list[bytes]:
    """The serialized routes that answer 405."""
    return [routes.not_allowed(name, selected[name], methods) for name, methods in found]
