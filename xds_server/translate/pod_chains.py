"""Connections to the addresses of pods: a filter chain for each in a listener of redirected connections.

Each pod has a chain of its own, so that a pod that comes or goes drains no connection to another one.
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from xds_server.discovery.snapshot import Resource
from xds_server.translate.protobuf import packed
from xds_server.translate.streams import TCP_PROXY

_BITS = {4: 32, 6: 128}


def with_pods(listener: Resource, clusters: Mapping[str, str]) -> Resource:
    """Return a listener whose connections to some addresses go to a cluster each; `clusters` has them by address.

    These chains do what the one without a condition does. Without such a chain, the listener stays as it is.
    """
    message = listener_pb2.Listener.FromString(listener.body)
    base = next((one for one in message.filter_chains if not one.HasField("filter_chain_match")), None)
    if base is None or not clusters:
        return listener
    message.filter_chains.extend(_chain(base, *one) for one in sorted(clusters.items()))
    return Resource.of(message, listener.name)


def _chain(
    base: listener_components_pb2.FilterChain, address: str, cluster: str
) -> listener_components_pb2.FilterChain:
    result = listener_components_pb2.FilterChain()
    result.CopyFrom(base)
    result.name = f"{base.name}/{address}"
    bits = _BITS[6 if ":" in address else 4]
    result.filter_chain_match.prefix_ranges.add(address_prefix=address).prefix_len.value = bits
    for one in result.filters:
        if one.name == TCP_PROXY:
            proxy = tcp_proxy_pb2.TcpProxy.FromString(one.typed_config.value)
            proxy.cluster = cluster
            one.typed_config.CopyFrom(packed(proxy))
    return result
