"""Clients of gRPC that speak xDS themselves: the same routes and endpoints in the part of xDS that they understand.

They look for a listener by the name in their target (``xds:///orders.shop:7070``), and need no filters, no ports and no
Envoy. https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md and A28, A31, A44 say what they read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE
from xds_server.translate import names
from xds_server.translate.protobuf import ads, packed

AGENT = "gRPC"
"""The names of these clients begin with it (`user_agent_name`)."""
_OURS = frozenset((names.BAD_PATH, names.BAD_AUTHORITY))
"""Routes that reject what no client of gRPC sends."""
_CALL = {":method": "POST", "content-type": "application/grpc"}
"""Headers that each call has, which these clients do not see when they choose a route."""
_RETRIED = frozenset(("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"))
_UNLIMITED = 2**32 - 1


class GrpcClients:
    """Makes successive snapshots of one group. What did not change is not made again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Resource | None, Resource]] = {}
        self._kept: dict[tuple[str, str], tuple[Resource | None, Resource]] = {}

    def snapshot(self, envoys: Snapshot, services: Mapping[str, Iterable[str]]) -> Snapshot:
        """Return the snapshot of clients beside that of their sidecars.

        `services` has the names by which clients look for a listener of Envoy, by its name.
        """
        self._kept = {}
        listeners, routes = [], []
        for listener, aliases in services.items():
            table = self._table(listener, envoys)
            if table is not None:
                routes.append(table)
                listeners += [self._made("listener", one, None, _listener, one, listener) for one in aliases]
        wanted = {
            name for one in routes for name in _clusters(route_pb2.RouteConfiguration.FromString(one.body))
        }
        clusters = [self._made("cluster", one, None, _cluster, one) for one in sorted(wanted)]
        endpoints = [
            self._made("endpoint", one, envoys[ENDPOINT].get(one), _endpoints, one, envoys)
            for one in sorted(wanted)
        ]
        self._known = self._kept
        return Snapshot.of({LISTENER: listeners, ROUTE: routes, CLUSTER: clusters, ENDPOINT: endpoints})

    def _table(self, name: str, envoys: Snapshot) -> Resource | None:
        listener = envoys[LISTENER].get(name)
        if listener is None:
            return None
        table = envoys[ROUTE].get(name)
        source = listener if table is None else table
        return self._made("route", name, source, _routes, name, listener, table)

    def _made(
        self, kind: str, name: str, source: Resource | None, make: Callable[..., Any], *arguments: Any
    ) -> Resource:
        known = self._known.get((kind, name))
        if known is None or known[0] != source:
            known = (source, Resource.of(make(*arguments), name))
        self._kept[kind, name] = known
        return known[1]


def _listener(name: str, table: str) -> listener_pb2.Listener:
    manager = hcm_pb2.HttpConnectionManager(rds=hcm_pb2.Rds(config_source=ads(), route_config_name=table))
    manager.http_filters.add(name="router", typed_config=packed(router_pb2.Router()))
    result = listener_pb2.Listener(name=name)
    result.api_listener.api_listener.CopyFrom(packed(manager))
    return result


def _cluster(name: str) -> cluster_pb2.Cluster:
    result = cluster_pb2.Cluster(
        name=name, type=cluster_pb2.Cluster.EDS, lb_policy=cluster_pb2.Cluster.ROUND_ROBIN
    )
    result.eds_cluster_config.eds_config.CopyFrom(ads())
    # by itself, gRPC fails calls above 1,024 at a time (A32)
    result.circuit_breakers.thresholds.add().max_requests.value = _UNLIMITED
    return result


def _endpoints(name: str, envoys: Snapshot) -> endpoint_pb2.ClusterLoadAssignment:
    """Return endpoints. gRPC takes no locality without a weight, and needs no choice between TLS and plain text."""
    known = envoys[ENDPOINT].get(name)
    result = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    if known is not None:
        result.MergeFromString(known.body)
    for group in result.endpoints:
        group.locality.SetInParent()
        group.load_balancing_weight.value = sum(
            one.load_balancing_weight.value or 1 for one in group.lb_endpoints
        )
        for one in group.lb_endpoints:
            one.ClearField("metadata")
    return result


def _routes(name: str, listener: Resource, table: Resource | None) -> route_pb2.RouteConfiguration:
    result = route_pb2.RouteConfiguration(name=name)
    host = result.virtual_hosts.add(name="*", domains=["*"])
    if table is None:
        host.routes.extend(_of_connections(listener))
    else:
        found = route_pb2.RouteConfiguration.FromString(table.body)
        host.routes.extend(_of_requests(one for each in found.virtual_hosts for one in each.routes))
    return result


def _of_connections(listener: Resource) -> Iterator[pb.Route]:
    """Yield the route to where connections go that no route for requests concerns."""
    message = listener_pb2.Listener.FromString(listener.body)
    for chain in message.filter_chains:
        for one in chain.filters:
            proxy = tcp_proxy_pb2.TcpProxy()
            if not one.typed_config.Unpack(proxy):
                continue
            route = pb.Route(match=pb.RouteMatch(prefix=""))
            if proxy.cluster:
                route.route.cluster = proxy.cluster
            for cluster in proxy.weighted_clusters.clusters:
                route.route.weighted_clusters.clusters.add(name=cluster.name).weight.value = cluster.weight
            yield route
            return


def _of_requests(routes: Iterable[pb.Route]) -> Iterator[pb.Route]:
    for one in routes:
        match = None if one.name in _OURS else _match(one.match)
        if match is None:
            continue
        result = pb.Route(name=one.name, match=match)
        if one.HasField("route"):
            result.route.CopyFrom(_action(one.route))
        else:  # gRPC knows no other action, and fails the call
            result.non_forwarding_action.SetInParent()
        yield result


def _match(match: pb.RouteMatch) -> pb.RouteMatch | None:
    """Return the condition of a route for calls, None if no call meets it."""
    result = pb.RouteMatch()
    kind = match.WhichOneof("path_specifier")
    if kind in ("prefix", "path", "safe_regex"):
        result.CopyFrom(match)
        del result.headers[:]
    elif kind == "path_separated_prefix":
        result.safe_regex.regex = f"{re.escape(match.path_separated_prefix)}(?:/.*)?"
    else:
        return None
    if match.query_parameters:
        return None  # a call has no query
    for field in ("grpc", "tls_context"):
        result.ClearField(field)
    for header in match.headers:
        given = _CALL.get(header.name.lower())
        if given is None:
            result.headers.append(header)
        elif not _holds(header, given):
            return None
    return result


def _holds(header: pb.HeaderMatcher, value: str) -> bool:
    """True if a condition on a header holds for a value. What is not compared here is taken to hold."""
    text = header.string_match
    kind = text.WhichOneof("match_pattern")
    found = {
        "exact": lambda: value == text.exact,
        "prefix": lambda: value.startswith(text.prefix),
        "suffix": lambda: value.endswith(text.suffix),
        "contains": lambda: text.contains in value,
        "safe_regex": lambda: re.fullmatch(text.safe_regex.regex, value) is not None,
    }.get(kind or "", lambda: True)()
    return found is not header.invert_match


def _action(action: pb.RouteAction) -> pb.RouteAction:
    result = pb.RouteAction()
    if action.HasField("weighted_clusters"):
        for one in action.weighted_clusters.clusters:
            result.weighted_clusters.clusters.add(name=one.name).weight.value = one.weight.value
    else:
        result.cluster = action.cluster
    if action.HasField("max_stream_duration"):
        result.max_stream_duration.CopyFrom(action.max_stream_duration)
    elif action.timeout.ToTimedelta():
        result.max_stream_duration.max_stream_duration.CopyFrom(action.timeout)
    retried = _RETRIED.intersection(action.retry_policy.retry_on.split(","))
    if retried:
        result.retry_policy.retry_on = ",".join(sorted(retried))
        result.retry_policy.num_retries.value = max(1, action.retry_policy.num_retries.value)
    return result


def _clusters(table: route_pb2.RouteConfiguration) -> Iterator[str]:
    for host in table.virtual_hosts:
        for route in host.routes:
            if route.HasField("route"):
                weighted = route.route.weighted_clusters.clusters
                yield from (one.name for one in weighted)
                if not weighted:
                    yield route.route.cluster
