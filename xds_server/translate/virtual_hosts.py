"""Virtual hosts: the routes of each host, in their order, joined from serialized parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from envoy.config.route.v3 import route_components_pb2, route_pb2
from google.protobuf.message import Message

from filters.policy import header
from filters.reasons import REASON_HEADER
from protos.wire_format import delimited
from xds_server.gateway import precedence
from xds_server.gateway.model import regex
from xds_server.gateway.model.hosts import wildcards
from xds_server.gateway.model.paths import PathMatch
from xds_server.gateway.model.ports import Port
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.translate import names, route_trees, routes
from xds_server.translate.protobuf import packed, uint32
from xds_server.translate.route_trees import Entry, RouteTree, Shape

_VIRTUAL_HOSTS = route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER
_ROUTES = route_components_pb2.VirtualHost.ROUTES_FIELD_NUMBER
_TREE = route_components_pb2.VirtualHost.MATCHER_FIELD_NUMBER


def selected(routes: Iterable[Ranked], listener: str) -> list[Ranked]:
    """Return the routes of a listener."""
    return [ranked for ranked in routes if not ranked.route.listeners or listener in ranked.route.listeners]


def by_host(routes: Iterable[Ranked], port: Port, listener: str) -> dict[str, list[Ranked]]:
    """Return the routes of each host of a listener in the order in which Envoy tries them.

    Envoy chooses one virtual host and never considers another. So a host has its own routes first, then those of the
    wildcards that cover it, then those for all hosts.
    """
    own = own_of_hosts(sorted(selected(routes, listener), key=attrgetter("rank")))
    return {
        host: with_wider(host, own) for host in sorted(port.hosts(listener, own), key=precedence.host_rank)
    }


def own_of_hosts(routes: Iterable[Ranked]) -> dict[str, list[Ranked]]:
    """Return the routes that name a host, by host and in the given order."""
    own: dict[str, list[Ranked]] = {}
    for ranked in routes:
        for host in ranked.hosts:
            known = own.get(host)
            if known is None:
                known = own[host] = []
            known.append(ranked)
    return own


def with_wider(host: str, own: Mapping[str, list[Ranked]]) -> list[Ranked]:
    """Return the routes of a host and those of the wildcards that cover it. `own` are sorted by rank."""
    wider = [ranked for wildcard in wildcards(host) for ranked in own.get(wildcard, ())]
    return list(dict.fromkeys((*own.get(host, ()), *wider))) if wider else own[host]


def fallbacks(members: Iterable[Ranked]) -> list[tuple[Ranked, frozenset[str]]]:
    """Return the routes that need a 405 at the end, with the methods that it allows."""
    groups_by_condition: dict[object, tuple[Ranked, frozenset[str]]] = {}
    for ranked in members:
        if ranked.refuses:
            known = groups_by_condition.get(ranked.condition)
            groups_by_condition[ranked.condition] = (
                (ranked, ranked.methods) if known is None else (known[0], known[1] | ranked.methods)
            )
    groups = [(ranked, ranked.route.match, methods) for ranked, methods in groups_by_condition.values()]
    broad = _Broad((match, methods) for _, match, methods in groups)
    return [(ranked, broad.allowed(match, methods)) for ranked, match, methods in groups]


class _Broad:
    """Paths that may cover other paths, found without a loop over all: a host may have thousands of routes."""

    def __init__(self, found: Iterable[tuple[PathMatch, frozenset[str]]]) -> None:
        self._prefixes: dict[str, frozenset[str]] = {}
        self._above: dict[str, frozenset[str]] = {}
        self._templates: dict[tuple[int, str], list[tuple[PathMatch, frozenset[str]]]] = {}
        self._regexes: list[tuple[PathMatch, frozenset[str]]] = []
        for match, methods in found:
            if match.kind == "prefix":
                base = match.value.rstrip("/")
                self._prefixes[match.value] = self._prefixes.get(match.value, methods) | methods
                self._above[base] = self._above.get(base, methods) | methods
            elif match.kind == "template":
                key = (match.value.count("/"), match.value.partition("{")[0])
                self._templates.setdefault(key, []).append((match, methods))
            elif match.kind == "regex":
                self._regexes.append((match, methods))

    def allowed(self, match: PathMatch, methods: frozenset[str]) -> frozenset[str]:
        """Return `methods` and those of all paths that cover `match`, as far as that is easy to find out."""
        if match.kind == "regex":
            return methods
        methods = methods | self._prefixes.get(match.value, methods)
        end = match.value.rfind("/")
        while end >= 0:
            more = self._above.get(match.value[:end])
            if more is not None:
                methods = methods | more
            end = match.value.rfind("/", 0, end)
        if match.kind == "exact" and (self._templates or self._regexes):
            methods = methods.union(
                *(more for pattern, more in self._patterns(match) if _fits(pattern, match))
            )
        return methods

    def _patterns(self, match: PathMatch) -> Iterator[tuple[PathMatch, frozenset[str]]]:
        slashes, end = match.value.count("/"), match.value.rfind("/")
        while end >= 0:
            yield from self._templates.get((slashes, match.value[: end + 1]), ())
            end = match.value.rfind("/", 0, end)
        yield from self._regexes


def _fits(pattern: PathMatch, exact: PathMatch) -> bool:
    return regex.matches(pattern.regex, exact.value)


def virtual_host(host: str, parts: Iterable[bytes]) -> bytes:
    """Return a serialized VirtualHost made of parts, each of them routes from `joined`."""
    head = route_components_pb2.VirtualHost(name=host, domains=[host])
    refused = _BAD_AUTHORITY + _BAD_PATH if host.startswith("*") else _BAD_PATH
    return head.SerializeToString(deterministic=True) + refused + b"".join(parts)


def misdirected(host: str) -> bytes:
    """Return a serialized VirtualHost of a host of another listener: 421 (RFC 9110 section 15.5.20)."""
    return virtual_host(host, (_MISDIRECTED,))


def to_https(host: str, port: int) -> bytes:
    """Return a serialized VirtualHost that redirects every request to https at a port.

    Envoy keeps the port of the request if the redirect names none, so requests with a port need a route of their own.
    """
    result = route_components_pb2.VirtualHost(name=host, domains=[host])
    if host.startswith("*"):
        result.routes.append(routes.bad_authority())
    redirect = route_components_pb2.RedirectAction(
        https_redirect=True, response_code=route_components_pb2.RedirectAction.PERMANENT_REDIRECT
    )
    for with_port in (True, False) if port == HTTPS else (True,):
        one = result.routes.add(name=names.REDIRECT_TO_HTTPS, redirect=redirect)
        one.match.prefix = "/"
        if with_port:
            one.redirect.port_redirect = port
            if port == HTTPS:
                one.match.headers.append(routes.has_port())
    return result.SerializeToString(deterministic=True)


def tree(host: str, shape: Shape) -> RouteTree:
    """Return the tree of a host, which tries the routes that reject bad requests first."""
    return RouteTree(_GUARDS_OF_ALL if host.startswith("*") else _GUARDS, shape)


def virtual_host_with_tree(host: str, matcher: bytes) -> bytes:
    """Return a serialized VirtualHost with a serialized matcher of its tree."""
    head = route_components_pb2.VirtualHost(name=host, domains=[host])
    return head.SerializeToString(deterministic=True) + delimited(_TREE, matcher)


def entries(part: bytes) -> tuple[Entry, ...]:
    """Return the routes of `joined` as entries of a tree."""
    found = route_components_pb2.VirtualHost.FromString(part).routes
    return tuple([route_trees.entry(one) for one in found])


def joined(bodies: Iterable[bytes]) -> bytes:
    """Return serialized routes in the form that a virtual host has."""
    return b"".join([delimited(_ROUTES, body) for body in bodies])


def route_configuration(
    name: str, alt_svc: str | None, hosts: Iterable[bytes], filters: Mapping[str, Message]
) -> bytes:
    """Return a serialized RouteConfiguration of serialized virtual hosts.

    `filters` are the filter configurations that all routes share.
    """
    head = route_pb2.RouteConfiguration(
        name=name,
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes=uint32(1 << 20),
    )
    # a reason of an upstream would look like one of ours
    head.response_headers_to_remove.append(REASON_HEADER)
    for name, config in filters.items():
        head.typed_per_filter_config[name].CopyFrom(packed(config))
    if alt_svc is not None:
        head.response_headers_to_add.append(header("alt-svc", alt_svc))
    return head.SerializeToString(deterministic=True) + b"".join(
        delimited(_VIRTUAL_HOSTS, one) for one in hosts
    )


HTTPS = 443
"""The default port of https (RFC 9110 section 4.2.2)."""


def _misdirected() -> bytes:
    result = route_components_pb2.Route(
        name=names.MISDIRECTED, match=route_components_pb2.RouteMatch(prefix="/")
    )
    result.direct_response.status = 421
    return joined([result.SerializeToString(deterministic=True)])


_MISDIRECTED = _misdirected()
_GUARDS = tuple(map(route_components_pb2.Route.FromString, routes.bad_paths()))
_GUARDS_OF_ALL = (routes.bad_authority(), *_GUARDS)
_BAD_AUTHORITY = joined([routes.bad_authority().SerializeToString(deterministic=True)])
_BAD_PATH = joined(routes.bad_paths())
