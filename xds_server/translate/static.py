"""A snapshot as one static bootstrap that plain Envoy runs, without any control plane."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.quic.v3 import quic_transport_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf import any_pb2

from filters.identity.oauth2_per_route import OAuth2PerRoute
from filters.identity.oidc import FILTER as LOGIN
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, SECRET
from xds_server.translate.listeners import HCM
from xds_server.translate.protobuf import packed
from xds_server.translate.runtime import runtime


def bootstrap(
    snapshot: Snapshot, private_keys: Mapping[str, base_pb2.DataSource] | None = None
) -> bootstrap_pb2.Bootstrap:
    """Every reference of the snapshot resolved into static resources.

    `private_keys` says by name of a secret where Envoy itself reads the key, so that the result holds none.
    """
    result = bootstrap_pb2.Bootstrap(layered_runtime=runtime())
    static = result.static_resources
    for resource in snapshot[SECRET].values():
        secret = static.secrets.add()
        secret.ParseFromString(resource.body)
        if secret.HasField("tls_certificate") and private_keys and secret.name in private_keys:
            secret.tls_certificate.private_key.CopyFrom(private_keys[secret.name])
    for cluster in snapshot[CLUSTER].values():
        static.clusters.append(_cluster(cluster_pb2.Cluster.FromString(cluster.body), snapshot))
    for listener in snapshot[LISTENER].values():
        static.listeners.append(_listener(listener_pb2.Listener.FromString(listener.body), snapshot))
    return result


def _cluster(cluster: cluster_pb2.Cluster, snapshot: Snapshot) -> cluster_pb2.Cluster:
    if cluster.type == cluster_pb2.Cluster.EDS:
        assignment = endpoint_pb2.ClusterLoadAssignment.FromString(snapshot[ENDPOINT][cluster.name].body)
        cluster.type = cluster_pb2.Cluster.STATIC
        cluster.ClearField("eds_cluster_config")
        cluster.load_assignment.CopyFrom(assignment)
    if cluster.HasField("transport_socket"):
        _transport_socket(cluster.transport_socket)
    return cluster


def _listener(listener: listener_pb2.Listener, snapshot: Snapshot) -> listener_pb2.Listener:
    for chain in listener.filter_chains:
        if chain.HasField("transport_socket"):
            _transport_socket(chain.transport_socket)
        for network in chain.filters:
            if network.name == HCM:
                manager = hcm_pb2.HttpConnectionManager.FromString(network.typed_config.value)
                network.typed_config.CopyFrom(packed(_connection_manager(manager, snapshot)))
    return listener


def _connection_manager(
    manager: hcm_pb2.HttpConnectionManager, snapshot: Snapshot
) -> hcm_pb2.HttpConnectionManager:
    if manager.HasField("rds"):
        body = snapshot[ROUTE][manager.rds.route_config_name].body
        manager.route_config.CopyFrom(route_pb2.RouteConfiguration.FromString(body))
        for host in manager.route_config.virtual_hosts:
            for route in host.routes:
                _login(route.typed_per_filter_config)
    for one in manager.http_filters:
        if one.HasField("config_discovery"):
            body = snapshot[EXTENSION_CONFIG][one.name].body
            one.typed_config.CopyFrom(extension_pb2.TypedExtensionConfig.FromString(body).typed_config)
    return manager


def _login(configs: MutableMapping[str, any_pb2.Any]) -> None:
    """Resolve the references of a login to its secrets."""
    if LOGIN in configs:
        login: Any = OAuth2PerRoute.FromString(configs[LOGIN].value)
        login.config.credentials.token_secret.ClearField("sds_config")
        login.config.credentials.hmac_secret.ClearField("sds_config")
        configs[LOGIN].CopyFrom(packed(login))


def _transport_socket(socket: base_pb2.TransportSocket) -> None:
    """Resolve references to secrets, wherever this socket has its TLS context."""
    found: Any = _unpacked(socket.typed_config)
    match found:
        case upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport():
            _transport_socket(found.transport_socket)
        case quic_transport_pb2.QuicDownstreamTransport():
            _static_secrets(found.downstream_tls_context.common_tls_context)
        case tls_pb2.UpstreamTlsContext() | tls_pb2.DownstreamTlsContext():
            _static_secrets(found.common_tls_context)
        case _:
            return
    socket.typed_config.CopyFrom(packed(found))


def _unpacked(config: any_pb2.Any) -> object:
    kinds = (
        tls_pb2.UpstreamTlsContext,
        tls_pb2.DownstreamTlsContext,
        quic_transport_pb2.QuicDownstreamTransport,
        upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport,
    )
    for kind in kinds:
        if config.type_url.endswith(f"/{kind.DESCRIPTOR.full_name}"):
            return kind.FromString(config.value)
    return None


def _static_secrets(context: tls_pb2.CommonTlsContext) -> None:
    for reference in context.tls_certificate_sds_secret_configs:
        reference.ClearField("sds_config")
    combined = context.combined_validation_context
    if combined.HasField("validation_context_sds_secret_config"):
        combined.validation_context_sds_secret_config.ClearField("sds_config")
