"""Snapshots for older Envoys, without the features that a release does not support.

A snapshot is made for the newest supported Envoy. Each row of `NEEDS` describes what is removed for releases before
another one, and docs/reference/versions.md has the same table for people.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2 as ratelimit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.quic.v3 import quic_transport_pb2

from filters.model.geoip import ASN_HEADER, COUNTRY_HEADER
from filters.operators import SINCE
from filters.pipeline import POLICIES
from filters.policy import NewField
from filters.rate_limit.policy import FILTER, STRICT_FILTER
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import LISTENER, ROUTE, ResourceType
from xds_server.translate import filter_chains, geoip, host_routes, names
from xds_server.translate.listeners import HCM
from xds_server.translate.metrics import LOGGER as METRICS_LOGGER
from xds_server.translate.protobuf import packed
from xds_server.translate.proving_copy import closed

LIMITS = (FILTER, STRICT_FILTER)
Release = tuple[int, int]
"""Major and minor version of Envoy."""
OLDEST: Release = (1, 36)
NEWEST: Release = (1, 40)
_SPAN_NAMES = b"envoy.tracers.opentelemetry"
_RELEASE = re.compile(r"envoy (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """A part that is left out for a release. `path` is its origin in the gateway."""

    type: ResourceType
    name: str
    version: str
    path: tuple[str, ...]
    message: str
    closed: bool = False
    """True if a 503 replaces it."""


@dataclass(frozen=True, slots=True)
class Need:
    """One feature, the first Envoy that has it, and a function that removes it from a snapshot."""

    feature: str
    since: Release
    without: Callable[[Snapshot], tuple[Snapshot, tuple[Lack, ...]]]


def parse(release: str) -> Release | None:
    """Return the numbers of ``envoy 1.37``, or None for another program."""
    match = _RELEASE.fullmatch(release)
    return (int(match[1]), int(match[2])) if match else None


def adapted(snapshot: Snapshot, release: str) -> tuple[Snapshot, tuple[Lack, ...]]:
    """Return a snapshot that a release of Envoy supports, and the removed parts. Other programs get all resources."""
    numbers = parse(release)
    lacks: list[Lack] = []
    for need in NEEDS:
        if numbers is not None and numbers < need.since:
            snapshot, removed = need.without(snapshot)
            lacks += removed
    return snapshot, tuple(lacks)


def _without_counting_at_the_end(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
    """Close routes that count when a request has ended, because these Envoys crash there."""
    return _close_routes(
        snapshot,
        _counts_at_the_end,
        "`quota`, `concurrency` and `count` need Envoy 1.37, and so do plans with them",
    )


def _counts_at_the_end(route: route_components_pb2.Route) -> bool:
    configs = (
        route.typed_per_filter_config[name] for name in LIMITS if name in route.typed_per_filter_config
    )
    limits = (ratelimit_pb2.RateLimitPerRoute.FromString(limit.value).rate_limits for limit in configs)
    return any(limit.apply_on_stream_done for some in limits for limit in some)


def _without_operators_of(since: Release) -> Callable[[Snapshot], tuple[Snapshot, tuple[Lack, ...]]]:
    """Close routes with a command operator in a header that is new in this release: older Envoys reject all routes."""
    operators = "|".join(sorted(name for name, first in SINCE.items() if first == since))
    pattern = re.compile(rf"(?<!%)(?:%%)*%(?:{operators})(?:\(|:|%)")

    def has(route: route_components_pb2.Route) -> bool:
        options = (*route.request_headers_to_add, *route.response_headers_to_add)
        return any(pattern.search(option.header.value) for option in options)

    def without(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
        return _close_routes(
            snapshot, has, f"a command operator in a header needs Envoy {since[0]}.{since[1]}"
        )

    return without


def _without_filter(
    key: str, filter_name: str, since: Release
) -> Callable[[Snapshot], tuple[Snapshot, tuple[Lack, ...]]]:
    """Remove a filter that these Envoys reject from listeners, and close the routes that configure it."""

    def drop(manager: hcm_pb2.HttpConnectionManager) -> None:
        kept = [one for one in manager.http_filters if one.name != filter_name]
        del manager.http_filters[:]
        manager.http_filters.extend(kept)

    def without(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
        listeners = {name: _map_listener(one, drop) for name, one in snapshot[LISTENER].items()}
        return _close_routes(
            snapshot.replacing({LISTENER: listeners}),
            lambda route: filter_name in route.typed_per_filter_config,
            f"`{key}` needs Envoy {since[0]}.{since[1]}",
        )

    return without


def _without_span_names(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
    """Remove the names of spans and our attributes, which these Envoys do not know. The spans have Envoy's names then."""

    def drop(manager: hcm_pb2.HttpConnectionManager) -> None:
        manager.tracing.ClearField("operation")
        manager.tracing.ClearField("upstream_operation")
        manager.tracing.ClearField("custom_tags")

    if not any(_SPAN_NAMES in one.body for one in snapshot[LISTENER].values()):
        return snapshot, ()
    listeners = {name: _map_listener(one, drop) for name, one in snapshot[LISTENER].items()}
    return snapshot.replacing({LISTENER: listeners}), ()


def _without_metrics(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
    """Remove the loggers of metrics, which these Envoys reject."""

    def drop(manager: hcm_pb2.HttpConnectionManager) -> None:
        kept = [one for one in manager.access_log if one.name != METRICS_LOGGER]
        del manager.access_log[:]
        manager.access_log.extend(kept)

    if not any(METRICS_LOGGER.encode() in one.body for one in snapshot[LISTENER].values()):
        return snapshot, ()
    listeners = {name: _map_listener(one, drop) for name, one in snapshot[LISTENER].items()}
    name, first = next(iter(sorted(snapshot[LISTENER].items())))
    lack = Lack(
        type=LISTENER,
        name=name,
        version=first.version,
        path=("telemetry", "metrics"),
        message="metrics by route and consumer need Envoy 1.37",
    )
    return snapshot.replacing({LISTENER: listeners}), (lack,)


def _without_field(new: NewField) -> Callable[[Snapshot], tuple[Snapshot, tuple[Lack, ...]]]:
    """Remove a field that these Envoys reject from filters, and close the routes that depend on it."""

    def change(manager: hcm_pb2.HttpConnectionManager) -> None:
        for one in manager.http_filters:
            if one.name in new.filters:
                one.typed_config.CopyFrom(packed(new.without(one.typed_config.value)))

    def without(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
        listeners = {name: _map_listener(one, change) for name, one in snapshot[LISTENER].items()}
        return _close_routes(
            snapshot.replacing({LISTENER: listeners}),
            lambda route: any(name in route.typed_per_filter_config for name in new.closes),
            new.message,
        )

    return without


def _map_listener(resource: Resource, edit: Callable[[hcm_pb2.HttpConnectionManager], None]) -> Resource:
    listener = listener_pb2.Listener.FromString(resource.body)
    for chain in listener.filter_chains:
        for network in chain.filters:
            if network.name == HCM:
                manager = hcm_pb2.HttpConnectionManager.FromString(network.typed_config.value)
                edit(manager)
                network.typed_config.CopyFrom(packed(manager))
    return Resource.of(listener)


def _close_routes(
    snapshot: Snapshot, chosen: Callable[[route_components_pb2.Route], bool], message: str
) -> tuple[Snapshot, tuple[Lack, ...]]:
    """Make some routes answer 503."""
    lacks: dict[str, Lack] = {}
    tables: dict[str, Resource] = {}
    for listener, resource in snapshot[ROUTE].items():
        table = route_pb2.RouteConfiguration.FromString(resource.body)
        found: dict[str, Lack] = {}

        def close(body: bytes, version: str = resource.version, found: dict[str, Lack] = found) -> bytes:
            route = route_components_pb2.Route.FromString(body)
            if not chosen(route):
                return body
            path = names.route_origin(route.name)
            name = path[-1] if path else route.name
            found[name] = Lack(
                type=ROUTE, name=name, version=version, path=path, message=message, closed=True
            )
            return closed(body)

        for host in table.virtual_hosts:
            host_routes.change(host, close)
        lacks |= found
        tables[listener] = Resource.of(table) if found else resource
    return snapshot.replacing({ROUTE: tables}), tuple(lacks.values())


def _without_quic_client_certificates(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
    """Remove HTTP/3 from listeners with client certificates, which these Envoys reject. HTTP/2 stays."""
    lacks = []
    listeners, tables = dict(snapshot[LISTENER]), dict(snapshot[ROUTE])
    for name, resource in snapshot[LISTENER].items():
        verifying = _verifying_over_quic(resource)
        if not verifying:
            continue
        left = filter_chains.replaced(resource, dict.fromkeys(verifying))
        if left is None:
            del listeners[name]
        else:
            listeners[name] = left
        for owner in verifying:  # the table of a listener with TLS has its name
            if owner in tables:
                tables[owner] = _without_alt_svc(tables[owner])
            lacks.append(
                Lack(
                    type=LISTENER,
                    name=owner,
                    version=resource.version,
                    path=("listeners", owner),
                    message="client certificates over HTTP/3 need Envoy 1.40; HTTP/1.1 and HTTP/2 are served",
                )
            )
    return snapshot.replacing({LISTENER: listeners, ROUTE: tables}), tuple(lacks)


def _verifying_over_quic(resource: Resource) -> list[str]:
    """Return the names of the filter chains that verify clients over QUIC."""
    found = []
    for chain in listener_pb2.Listener.FromString(resource.body).filter_chains:
        config = chain.transport_socket.typed_config
        if config.type_url.endswith(f"/{quic_transport_pb2.QuicDownstreamTransport.DESCRIPTOR.full_name}"):
            socket = quic_transport_pb2.QuicDownstreamTransport.FromString(config.value)
            common = socket.downstream_tls_context.common_tls_context
            if common.WhichOneof("validation_context_type") is not None:
                found.append(chain.name)
    return found


def _without_alt_svc(resource: Resource) -> Resource:
    table = route_pb2.RouteConfiguration.FromString(resource.body)
    kept = [option for option in table.response_headers_to_add if option.header.key != "alt-svc"]
    del table.response_headers_to_add[:]
    table.response_headers_to_add.extend(kept)
    return Resource.of(table)


def _without_geoip(snapshot: Snapshot) -> tuple[Snapshot, tuple[Lack, ...]]:
    """Remove the filter with databases, and close routes with a policy that needs it: these Envoys end if they cannot open one."""

    def drop(manager: hcm_pb2.HttpConnectionManager) -> None:
        kept = [one for one in manager.http_filters if one.name != geoip.FILTER]
        del manager.http_filters[:]
        manager.http_filters.extend(kept)

    def needs(route: route_components_pb2.Route) -> bool:
        configs = route.typed_per_filter_config.values()
        return any(name.encode() in one.value for one in configs for name in (COUNTRY_HEADER, ASN_HEADER))

    if not any(geoip.FILTER.encode() in one.body for one in snapshot[LISTENER].values()):
        return snapshot, ()
    listeners = {name: _map_listener(one, drop) for name, one in snapshot[LISTENER].items()}
    name, first = next(iter(sorted(snapshot[LISTENER].items())))
    lack = Lack(
        type=LISTENER,
        name=name,
        version=first.version,
        path=("geoip",),
        message="`geoip` needs Envoy 1.40, and requests have no country before it",
    )
    message = "policies by country or autonomous system need Envoy 1.40"
    closed_, lacks = _close_routes(snapshot.replacing({LISTENER: listeners}), needs, message)
    return closed_, (lack, *lacks)


def _operators(since: Release) -> str:
    names = ", ".join(f"`%{name}%`" for name, first in sorted(SINCE.items()) if first == since)
    return f"{names} in headers"


NEEDS: tuple[Need, ...] = (
    Need("limits that are counted at the end of a request", (1, 37), _without_counting_at_the_end),
    Need(_operators((1, 37)), (1, 37), _without_operators_of((1, 37))),
    Need(_operators((1, 38)), (1, 38), _without_operators_of((1, 38))),
    Need("names and attributes of spans", (1, 37), _without_span_names),
    Need("`telemetry.metrics`", (1, 37), _without_metrics),
    *(
        Need(f"`{policy.key}`", since, _without_filter(policy.key, name, since))
        for policy in POLICIES
        for name, since in policy.since.items()
    ),
    *(Need(new.feature, new.since, _without_field(new)) for policy in POLICIES for new in policy.new_fields),
    Need("`geoip`", (1, 40), _without_geoip),
    Need("client certificates over HTTP/3", (1, 40), _without_quic_client_certificates),
)
