"""Stream routes: filter chains that forward the bytes of connections, and listeners that forward datagrams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2, udp_proxy_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.extensions.matching.input_matchers.consistent_hashing.v3 import consistent_hashing_pb2
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from filters.authorization import principals
from xds_server.gateway.model.listeners import Listener
from xds_server.gateway.model.stream_routes import StreamRoute
from xds_server.translate import names
from xds_server.translate.protobuf import duration, packed

TCP_PROXY = "envoy.filters.network.tcp_proxy"
RBAC = "envoy.filters.network.rbac"
UDP_PROXY = "envoy.filters.udp_listener.udp_proxy"


def tcp_proxy(
    name: str, route: StreamRoute, listener: Listener, logs: Iterable[accesslog_pb2.AccessLog]
) -> listener_components_pb2.Filter:
    """Return the filter that forwards the bytes of connections."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=names.stream_statistics(name), access_log=logs)
    weights = route.weights
    if len(weights) == 1:
        proxy.cluster = names.cluster(next(iter(weights)))
    else:
        for upstream, weight in sorted(weights.items()):
            proxy.weighted_clusters.clusters.add(name=names.cluster(upstream), weight=weight)
    if route.idle_timeout is not None:
        proxy.idle_timeout.CopyFrom(duration(route.idle_timeout))
    if route.max_connect_attempts is not None:
        proxy.max_connect_attempts.value = route.max_connect_attempts
    if listener.timeouts.connection:
        proxy.max_downstream_connection_duration.CopyFrom(duration(listener.timeouts.connection))
    return listener_components_pb2.Filter(name=TCP_PROXY, typed_config=packed(proxy))


def authorization(name: str, route: StreamRoute) -> Iterator[listener_components_pb2.Filter]:
    """Yield the filter that closes connections which the rules of a route do not allow, if it has some."""
    if route.authorize:
        config = network_rbac_pb2.RBAC(stat_prefix=f"{names.stream_statistics(name)}.")
        config.rules.CopyFrom(principals.of_connections((one.clients, one.deny) for one in route.authorize))
        yield listener_components_pb2.Filter(name=RBAC, typed_config=packed(config))


def udp_proxy(
    name: str, route: StreamRoute, logs: Iterable[accesslog_pb2.AccessLog]
) -> listener_components_pb2.ListenerFilter:
    """Return the filter that forwards datagrams. Those of one client's address and port are a session."""
    proxy = udp_proxy_pb2.UdpProxyConfig(
        stat_prefix=names.stream_statistics(name), access_log=logs, matcher=_matcher(route.weights)
    )
    if route.idle_timeout is not None:
        proxy.idle_timeout.CopyFrom(duration(route.idle_timeout))
    return listener_components_pb2.ListenerFilter(name=UDP_PROXY, typed_config=packed(proxy))


def _matcher(weights: Mapping[str, int]) -> matcher_pb2.Matcher:
    """Return a choice by weight. Envoy has no weights for UDP, so the hash of the client's port decides."""
    result, total = matcher_pb2.Matcher(), sum(weights.values())
    *others, last = sorted(weights)
    left = total
    for upstream in others:
        left -= weights[upstream]
        field = result.matcher_list.matchers.add(on_match=_to(upstream))
        predicate = field.predicate.single_predicate
        predicate.input.CopyFrom(_extension("source_port", network_inputs_pb2.SourcePortInput()))
        hashing = consistent_hashing_pb2.ConsistentHashing(modulo=total, threshold=left)
        predicate.custom_match.CopyFrom(_extension("consistent_hashing", hashing))
    result.on_no_match.CopyFrom(_to(last))
    return result


def _to(upstream: str) -> matcher_pb2.Matcher.OnMatch:
    route = route_pb2.Route(cluster=names.cluster(upstream))
    return matcher_pb2.Matcher.OnMatch(action=_extension("route", route))


def _extension(name: str, config: Message) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))
