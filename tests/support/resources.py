"""Small real Envoy resources that refer to each other over ADS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

ADS = config_source_pb2.ConfigSource(ads=config_source_pb2.AggregatedConfigSource())


def cluster(name: str, version: str = "", secret: str = "") -> Resource:
    """An EDS cluster; `version` changes its content, `secret` has it wait for one."""
    message = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS, alt_stat_name=version)
    message.eds_cluster_config.eds_config.CopyFrom(ADS)
    if secret:
        context = tls_pb2.UpstreamTlsContext()
        context.common_tls_context.tls_certificate_sds_secret_configs.add(name=secret, sds_config=ADS)
        message.transport_socket.name = "tls"
        message.transport_socket.typed_config.Pack(context)
    return Resource.of(message)


def endpoint(name: str, port: int = 80) -> Resource:
    """A ClusterLoadAssignment with one endpoint of 127.0.0.1."""
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    socket = message.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    socket.address, socket.port_value = "127.0.0.1", port
    return Resource.of(message)


def listener(name: str, routes: str, version: str = "") -> Resource:
    """A listener whose routes come over RDS."""
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=version or name, rds=hcm_pb2.Rds(config_source=ADS, route_config_name=routes)
    )
    message = listener_pb2.Listener(name=name)
    message.filter_chains.add().filters.add(name="hcm").typed_config.Pack(manager)
    return Resource.of(message)


def routes(name: str, to: Mapping[str, str]) -> Resource:
    """A RouteConfiguration: path prefixes to clusters."""
    message = route_pb2.RouteConfiguration(name=name)
    host = message.virtual_hosts.add(name="all", domains=["*"])
    for prefix, target in to.items():
        host.routes.add(match={"prefix": prefix}, route={"cluster": target})
    return Resource.of(message)


def gateway(
    upstreams: Iterable[str], to: Mapping[str, str], *, version: str = "", port: int = 80
) -> Snapshot:
    """One listener, its routes, and a cluster with an endpoint for each upstream."""
    names = list(upstreams)
    return Snapshot.of(
        {
            CLUSTER: [cluster(name, version) for name in names],
            ENDPOINT: [endpoint(name, port) for name in names],
            LISTENER: [listener("http", "http")],
            ROUTE: [routes("http", to)],
        }
    )
