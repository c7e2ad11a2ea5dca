"""Filter chains for the addresses of pods."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from tests.support.folder import snapshot
from xds_server.discovery.types import LISTENER
from xds_server.translate.pod_chains import with_pods

LISTENER_OF_ALL = """
listeners: {out: {address: "::", port: 15001, protocol: tcp, original_destination: true}}
upstreams: {out: {endpoints: [], original_destination: true, protocol: tcp}}
stream_routes: {out: {upstream: out, idle_timeout: 0s}}
"""


def test_each_pod_has_a_chain_of_its_own_and_the_others_stay() -> None:
    (before,) = snapshot(LISTENER_OF_ALL)[LISTENER].values()
    assert with_pods(before, {}) is before
    first, second = (
        listener_pb2.Listener.FromString(with_pods(before, clusters).body)
        for clusters in ({"10.0.0.1": "a"}, {"10.0.0.1": "a", "fd00::1": "b"})
    )
    assert list(second.filter_chains)[:2] == list(first.filter_chains)
    base, one, two = second.filter_chains
    assert base == listener_pb2.Listener.FromString(before.body).filter_chains[0]
    found = []
    for chain in (one, two):
        (network,) = chain.filter_chain_match.prefix_ranges
        proxy = tcp_proxy_pb2.TcpProxy()
        assert chain.filters[-1].typed_config.Unpack(proxy)
        found.append((chain.name, network.address_prefix, network.prefix_len.value, proxy.cluster))
    assert found == [
        ("out/out/10.0.0.1", "10.0.0.1", 32, "a"),
        ("out/out/fd00::1", "fd00::1", 128, "b"),
    ]
