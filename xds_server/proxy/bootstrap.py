"""The bootstrap of an Envoy that gets its configuration over ADS: its node, its control plane, its load limits.

It follows Envoy's advice for an edge proxy: memory and connections are bounded, with steps before the bound. So an
overloaded Envoy rejects requests and does not run out of memory.

https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2, protocol_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from xds_server.gateway.model.upstreams import parse_address
from xds_server.proxy import probes
from xds_server.proxy.mounted_identity import MountedIdentity
from xds_server.proxy.probes import NONE, Probe
from xds_server.translate import endpoints
from xds_server.translate.clusters import HTTP_OPTIONS
from xds_server.translate.protobuf import ads, duration, packed
from xds_server.translate.runtime import runtime

CONTROL_PLANE = "xds/control-plane"
"""The cluster of the control plane. The name of an upstream never has a slash."""
_STATS_FLUSH = timedelta(seconds=2)
"""Envoy merges the histograms of its workers as often, which the console shows."""
_LOG_FIELDS = {"time": "%Y-%m-%dT%H:%M:%S.%FZ", "level": "%l", "logger": "envoy.%n", "message": "%j"}
"""Envoy's own log as JSON, with the fields of ours."""
_API = config_source_pb2.ApiConfigSource
_HEAP, _CONNECTIONS = (
    "envoy.resource_monitors.fixed_heap",
    "envoy.resource_monitors.global_downstream_max_connections",
)
_ACTIONS = (
    ("envoy.overload_actions.shrink_heap", 0.92),
    ("envoy.overload_actions.disable_http_keepalive", 0.95),
    ("envoy.overload_actions.stop_accepting_requests", 0.98),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTls:
    """TLS to the control plane. Envoy reads the files. `certificate` and `private_key` make it mutual."""

    ca: str
    server_name: str
    certificate: str | None = None
    private_key: str | None = None


def bootstrap(
    *,
    xds_address: str,
    node_id: str,
    cluster: str = "gateway",
    admin_port: int = 0,
    delta: bool = True,
    tls: ChannelTls | MountedIdentity | None = None,
    metadata: Mapping[str, Any] | None = None,
    max_heap: int = 2 << 30,
    max_connections: int = 50_000,
    json_log: bool = False,
    ready_port: int | None = None,
    drain: probes.Drain | None = None,
    forwarded: Mapping[str, Probe] = NONE,
) -> bootstrap_pb2.Bootstrap:
    """Return a bootstrap for the control plane at `xds_address`, which is ``host:port`` or ``unix:/path``.

    `admin_port` is on loopback; 0 means any free port. With `json_log`, Envoy's own log is JSON. `max_heap` is in bytes.
    `ready_port` answers ``/ready`` on all addresses, for probes from outside, and ``/drain`` if there is a `drain`; it needs
    an `admin_port`. It forwards probes by their path.

    Raises Mistake if the address is malformed.
    """
    result = bootstrap_pb2.Bootstrap(node=base_pb2.Node(id=node_id, cluster=cluster))
    result.node.metadata.update(dict(metadata or {}))
    result.admin.address.socket_address.address = "127.0.0.1"
    result.admin.address.socket_address.port_value = admin_port
    if json_log:
        result.application_log_config.log_format.json_format.update(_LOG_FIELDS)
    result.stats_flush_interval.CopyFrom(duration(_STATS_FLUSH))
    dynamic = result.dynamic_resources
    if isinstance(tls, MountedIdentity):
        service = tls.grpc_service(xds_address)
    else:
        service = grpc_service_pb2.GrpcService()
        service.envoy_grpc.cluster_name = CONTROL_PLANE
        result.static_resources.clusters.append(_control_plane(xds_address, tls))
    dynamic.ads_config.CopyFrom(_ads_config(service, delta=delta))
    result.cluster_manager.load_stats_config.CopyFrom(_load_stats_config(service))
    dynamic.lds_config.CopyFrom(ads())
    dynamic.cds_config.CopyFrom(ads())
    if ready_port is not None:
        # otherwise Envoy would be ready after 15 seconds without a configuration
        for source in (dynamic.lds_config, dynamic.cds_config):
            source.initial_fetch_timeout.CopyFrom(duration(timedelta(0)))
        result.static_resources.clusters.extend(probes.clusters(admin_port, forwarded))
        result.static_resources.listeners.append(probes.listener(ready_port, drain, forwarded))
    result.layered_runtime.CopyFrom(runtime())
    result.overload_manager.CopyFrom(_overload_manager(max_heap, max_connections))
    return result


def _ads_config(service: grpc_service_pb2.GrpcService, *, delta: bool) -> config_source_pb2.ApiConfigSource:
    return _API(
        api_type=_API.DELTA_GRPC if delta else _API.GRPC,
        transport_api_version=config_source_pb2.V3,
        grpc_services=[service],
        set_node_on_first_message_only=True,
    )


def _load_stats_config(service: grpc_service_pb2.GrpcService) -> config_source_pb2.ApiConfigSource:
    """Return where Envoy reports its load. It sends no report before the control plane requests some."""
    return _API(api_type=_API.GRPC, transport_api_version=config_source_pb2.V3, grpc_services=[service])


def _control_plane(address: str, tls: ChannelTls | None) -> cluster_pb2.Cluster:
    parsed = parse_address(address)
    keepalive = protocol_pb2.KeepaliveSettings(
        interval=duration(timedelta(seconds=30)), timeout=duration(timedelta(seconds=5))
    )
    options = http_protocol_options_pb2.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.connection_keepalive.CopyFrom(keepalive)
    kind = cluster_pb2.Cluster.STRICT_DNS if parsed.kind == "name" else cluster_pb2.Cluster.STATIC
    result = cluster_pb2.Cluster(
        name=CONTROL_PLANE,
        type=kind,
        connect_timeout=duration(timedelta(seconds=5)),
        typed_extension_protocol_options={HTTP_OPTIONS: packed(options)},
    )
    result.load_assignment.cluster_name = CONTROL_PLANE
    endpoint = result.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.CopyFrom(endpoints.address(parsed))
    if tls is not None:
        result.transport_socket.CopyFrom(_transport_socket(tls))
    return result


def _transport_socket(tls: ChannelTls) -> base_pb2.TransportSocket:
    common = tls_pb2.CommonTlsContext(alpn_protocols=["h2"])
    validation = common.validation_context
    validation.trusted_ca.filename = tls.ca
    matcher = validation.match_typed_subject_alt_names.add(san_type=common_pb2.SubjectAltNameMatcher.DNS)
    matcher.matcher.exact = tls.server_name
    if tls.certificate is not None and tls.private_key is not None:
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.filename = tls.certificate
        certificate.private_key.filename = tls.private_key
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=tls.server_name)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _overload_manager(max_heap: int, max_connections: int) -> overload_pb2.OverloadManager:
    heap = packed(fixed_heap_pb2.FixedHeapConfig(max_heap_size_bytes=max_heap))
    connections = packed(
        downstream_connections_pb2.DownstreamConnectionsConfig(
            max_active_downstream_connections=max_connections
        )
    )
    result = overload_pb2.OverloadManager(
        refresh_interval=duration(timedelta(milliseconds=250)),
        resource_monitors=[
            overload_pb2.ResourceMonitor(name=_HEAP, typed_config=heap),
            overload_pb2.ResourceMonitor(name=_CONNECTIONS, typed_config=connections),
        ],
    )
    for name, value in _ACTIONS:
        trigger = overload_pb2.Trigger(name=_HEAP, threshold=overload_pb2.ThresholdTrigger(value=value))
        result.actions.add(name=name, triggers=[trigger])
    return result
