"""Clusters (CDS): one for each upstream. Only the upstream's own name decides the cluster's name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2, protocol_pb2, proxy_protocol_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import http_pb2, percent_pb2, range_pb2

from filters.policy_server import SERVICE, internal_cluster
from xds_server.gateway.model.resilience import CircuitBreaker, HealthCheck, OutlierDetection
from xds_server.gateway.model.upstreams import Upstream, UpstreamTls, parse_address
from xds_server.gateway.raw import merged
from xds_server.translate import composer_entry, endpoints, names, tls, usage_entry
from xds_server.translate.protobuf import ads, duration, packed, uint32

INTERNAL_SERVICES: Mapping[str, str] = {
    SERVICE: "127.0.0.1:18001",
    usage_entry.SERVICE: "127.0.0.1:18002",
    composer_entry.SERVICE: "127.0.0.1:18003",
}
"""The default addresses of our own services."""
_USUAL = CircuitBreaker()
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_LB_POLICIES = {
    "round_robin": cluster_pb2.Cluster.ROUND_ROBIN,
    "least_request": cluster_pb2.Cluster.LEAST_REQUEST,
    "random": cluster_pb2.Cluster.RANDOM,
    "ring_hash": cluster_pb2.Cluster.RING_HASH,
    "maglev": cluster_pb2.Cluster.MAGLEV,
}
_DNS_FAMILIES = {
    "auto": cluster_pb2.Cluster.AUTO,
    "v4": cluster_pb2.Cluster.V4_ONLY,
    "v6": cluster_pb2.Cluster.V6_ONLY,
    "all": cluster_pb2.Cluster.ALL,
}
_PROXY_VERSIONS = {
    "v1": proxy_protocol_pb2.ProxyProtocolConfig.V1,
    "v2": proxy_protocol_pb2.ProxyProtocolConfig.V2,
}


def is_dns(upstream: Upstream) -> bool:
    """True if Envoy itself resolves the endpoints. Then they are in the cluster and not in EDS."""
    return any(endpoint.parsed.kind == "name" for endpoint in upstream.endpoints)


def has_eds(upstream: Upstream) -> bool:
    """True if the endpoints are an EDS resource."""
    return not is_dns(upstream) and not upstream.original_destination


def cluster(name: str, upstream: Upstream) -> cluster_pb2.Cluster:
    """Return the cluster of an upstream."""
    result = cluster_pb2.Cluster(
        name=names.cluster(name),
        connect_timeout=duration(upstream.connect_timeout),
        per_connection_buffer_limit_bytes=uint32(upstream.buffer),
        ignore_health_on_host_removal=True,
        circuit_breakers=_circuit_breakers(upstream),
        common_lb_config=_common_lb(upstream),
        typed_extension_protocol_options={HTTP_OPTIONS: packed(_http_options(upstream))},
    )
    _discovery(name, upstream, result)
    _load_balancing(upstream, result)
    if upstream.health_check is not None:
        result.health_checks.append(_health_check(name, upstream, upstream.health_check))
    if upstream.outlier_detection is not None:
        result.outlier_detection.CopyFrom(_outlier_detection(upstream.outlier_detection))
    socket = _transport_socket(name, upstream)
    if socket is not None:
        result.transport_socket.CopyFrom(socket)
    if upstream.tls is not None and upstream.tls.optional:
        plain = result.transport_socket_matches.add(name="plain", match=endpoints.WITHOUT_TLS)
        plain.transport_socket.CopyFrom(
            _transport_socket(name, dataclasses.replace(upstream, tls=None)) or _raw_buffer()
        )
    for number, address in enumerate(upstream.source_addresses):
        config = result.upstream_bind_config  # Envoy takes the address of the family that it connects to
        source = address_pb2.SocketAddress(address=address, port_value=0)
        target = config.extra_source_addresses.add().address if number else config.source_address
        target.CopyFrom(source)
    if upstream.tcp_keepalive is not None:
        keepalive = result.upstream_connection_options.tcp_keepalive
        keepalive.keepalive_time.value = int(upstream.tcp_keepalive.time.total_seconds())
        keepalive.keepalive_interval.value = int(upstream.tcp_keepalive.interval.total_seconds())
        keepalive.keepalive_probes.value = upstream.tcp_keepalive.probes
    return merged(result, upstream.envoy)


def cluster_of_url(url: str) -> cluster_pb2.Cluster:
    """Return the cluster with which Envoy's own filters fetch a URL."""
    parts = urlsplit(url)
    name = names.cluster_of_url(url)
    address = parse_address(name.removeprefix("url/"))
    result = cluster_pb2.Cluster(
        name=name, connect_timeout=duration(timedelta(seconds=5)), type=cluster_pb2.Cluster.STRICT_DNS
    )
    result.load_assignment.cluster_name = name
    result.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.CopyFrom(
        endpoints.address(address)
    )
    if parts.scheme == "https":
        result.transport_socket.CopyFrom(tls.upstream(name, UpstreamTls(sni=parts.hostname), ()))
    return result


_FIELD_TABLE = 64 << 10
"""Bytes of the table of repeated fields (RFC 7541): the chains of processors of about 250 routes fit into it."""


_KEEPALIVE = timedelta(seconds=10)
_UNLIMITED = 1_000_000
_MOST_CALLS = {usage_entry.SERVICE: usage_entry.MOST_BATCHES}
"""Concurrent calls of a service, if they are limited by their number and not by timeouts of policies."""


def internal_service(name: str, address: str) -> cluster_pb2.Cluster:
    """Return the cluster of one of our own services, in plain text, on this machine or a trusted network.

    All but the composer speak gRPC.
    """
    parsed = parse_address(address)
    kind = cluster_pb2.Cluster.STRICT_DNS if parsed.kind == "name" else cluster_pb2.Cluster.STATIC
    result = cluster_pb2.Cluster(
        name=internal_cluster(name), connect_timeout=duration(timedelta(seconds=1)), type=kind
    )
    result.load_assignment.cluster_name = internal_cluster(name)
    if (
        kind == cluster_pb2.Cluster.STRICT_DNS
    ):  # localhost may resolve to ::1, while the service listens on 127.0.0.1
        result.dns_lookup_family = cluster_pb2.Cluster.ALL
    endpoint = result.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.CopyFrom(endpoints.address(parsed))
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if name == composer_entry.SERVICE:
        options.explicit_http_config.http_protocol_options.SetInParent()
    else:
        _write_http2(name, options.explicit_http_config.http2_protocol_options)
    result.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(options))
    most = uint32(_MOST_CALLS.get(name, _UNLIMITED))
    result.circuit_breakers.thresholds.add(
        max_connections=most,
        max_pending_requests=most,
        max_requests=most,
        max_retries=most,
        track_remaining=name in _MOST_CALLS,
    )
    return result


def _write_http2(name: str, http2: protocol_pb2.Http2ProtocolOptions) -> None:
    http2.hpack_table_size.value = _FIELD_TABLE
    if name in _MOST_CALLS:  # a call that waits for very long must end with a connection that is dead
        http2.connection_keepalive.interval.CopyFrom(duration(_KEEPALIVE))
        http2.connection_keepalive.timeout.CopyFrom(duration(_KEEPALIVE))


def _discovery(name: str, upstream: Upstream, result: cluster_pb2.Cluster) -> None:
    if upstream.original_destination:
        result.type = cluster_pb2.Cluster.ORIGINAL_DST
        return
    if not is_dns(upstream):
        result.type = cluster_pb2.Cluster.EDS
        result.eds_cluster_config.eds_config.CopyFrom(ads())
        return
    result.type = cluster_pb2.Cluster.STRICT_DNS
    result.dns_refresh_rate.CopyFrom(duration(upstream.dns_refresh))
    result.dns_lookup_family = _DNS_FAMILIES[upstream.dns_family]
    result.load_assignment.CopyFrom(endpoints.load_assignment(name, upstream))


def _load_balancing(upstream: Upstream, result: cluster_pb2.Cluster) -> None:
    balancing = upstream.load_balancing
    if upstream.original_destination:
        result.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
        return
    result.lb_policy = _LB_POLICIES[balancing.policy]
    if balancing.policy == "least_request":
        result.least_request_lb_config.choice_count.value = balancing.choices
    if balancing.policy == "ring_hash":
        result.ring_hash_lb_config.minimum_ring_size.value = balancing.minimum_ring_size
    if balancing.policy == "maglev":
        result.maglev_lb_config.table_size.value = balancing.table_size
    if upstream.slow_start is not None:
        least = balancing.policy == "least_request"
        config = result.least_request_lb_config if least else result.round_robin_lb_config
        slow = config.slow_start_config
        slow.slow_start_window.CopyFrom(duration(upstream.slow_start.window))
        slow.min_weight_percent.value = upstream.slow_start.minimum_share


def _common_lb(upstream: Upstream) -> cluster_pb2.Cluster.CommonLbConfig:
    config = cluster_pb2.Cluster.CommonLbConfig(
        healthy_panic_threshold=percent_pb2.Percent(value=upstream.panic_threshold)
    )
    if upstream.load_balancing.locality_weighted:
        config.locality_weighted_lb_config.SetInParent()
    return config


def _circuit_breakers(upstream: Upstream) -> circuit_breaker_pb2.CircuitBreakers:
    limits = upstream.circuit_breaker
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=uint32(limits.max_connections),
        max_pending_requests=uint32(limits.max_pending),
        max_requests=uint32(limits.max_requests),
        track_remaining=True,
    )
    if limits.max_retries is not None:
        thresholds.max_retries.value = limits.max_retries
    else:
        thresholds.retry_budget.budget_percent.value = limits.retry_budget
        thresholds.retry_budget.min_retry_concurrency.value = limits.min_retries
    result = circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds])
    if limits != _USUAL:  # Envoy's own limits for a high priority are the usual ones
        high = result.thresholds.add()
        high.CopyFrom(thresholds)
        high.priority = base_pb2.HIGH
    return result


def _http_options(upstream: Upstream) -> http_protocol_options_pb2.HttpProtocolOptions:
    common = protocol_pb2.HttpProtocolOptions(idle_timeout=duration(upstream.idle_timeout))
    if upstream.max_requests_per_connection is not None:
        common.max_requests_per_connection.value = upstream.max_requests_per_connection
    if upstream.max_connection_duration is not None:
        common.max_connection_duration.CopyFrom(duration(upstream.max_connection_duration))
    options = http_protocol_options_pb2.HttpProtocolOptions(common_http_protocol_options=common)
    http2 = protocol_pb2.Http2ProtocolOptions()
    if upstream.max_concurrent_streams is not None:
        http2.max_concurrent_streams.value = upstream.max_concurrent_streams
    if upstream.protocol == "auto":
        options.auto_config.http2_protocol_options.CopyFrom(http2)
    elif upstream.protocol == "same":
        options.use_downstream_protocol_config.http_protocol_options.SetInParent()
        options.use_downstream_protocol_config.http2_protocol_options.CopyFrom(http2)
    elif upstream.protocol in ("http1", "tcp"):
        options.explicit_http_config.http_protocol_options.SetInParent()
    else:
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
    return options


def _health_check(name: str, upstream: Upstream, check: HealthCheck) -> health_check_pb2.HealthCheck:
    grpc = upstream.protocol == "grpc"
    kind = check.type or ("http" if check.path else "grpc" if grpc else "tcp")
    result = health_check_pb2.HealthCheck(
        timeout=duration(check.timeout),
        interval=duration(check.interval),
        no_traffic_interval=duration(check.interval),
        unhealthy_threshold=uint32(check.unhealthy_after),
        healthy_threshold=uint32(check.healthy_after),
    )
    if kind == "tcp":
        result.tcp_health_check.SetInParent()
    elif kind == "grpc":
        result.grpc_health_check.service_name = check.service
        result.grpc_health_check.authority = check.host or ""
    else:
        http = result.http_health_check
        http.path = check.path or "/"
        http.host = check.host or name
        http.codec_client_type = (
            http_pb2.HTTP1 if upstream.protocol in ("http1", "auto", "same", "tcp") else http_pb2.HTTP2
        )
        for status in sorted(set(check.expected_statuses)):
            http.expected_statuses.append(range_pb2.Int64Range(start=status, end=status + 1))
    return result


def _outlier_detection(settings: OutlierDetection) -> outlier_detection_pb2.OutlierDetection:
    result = outlier_detection_pb2.OutlierDetection(
        interval=duration(settings.interval),
        base_ejection_time=duration(settings.eject_for),
        max_ejection_percent=uint32(round(settings.max_ejected)),
        enforcing_success_rate=uint32(0),
        enforcing_consecutive_5xx=uint32(100 if settings.consecutive_5xx else 0),
    )
    if settings.consecutive_5xx is not None:
        result.consecutive_5xx.value = settings.consecutive_5xx
    if settings.consecutive_gateway_failures is not None:
        result.consecutive_gateway_failure.value = settings.consecutive_gateway_failures
        result.enforcing_consecutive_gateway_failure.value = 100
    if settings.consecutive_connect_failures is not None:
        result.split_external_local_origin_errors = True
        result.consecutive_local_origin_failure.value = settings.consecutive_connect_failures
        result.enforcing_consecutive_local_origin_failure.value = 100
    return result


def _raw_buffer() -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=packed(raw_buffer_pb2.RawBuffer())
    )


def _transport_socket(name: str, upstream: Upstream) -> base_pb2.TransportSocket | None:
    socket = None
    if upstream.tls is not None:
        socket = tls.upstream(name, _with_sni(upstream, upstream.tls), _alpn(upstream))
    if upstream.proxy_protocol is None:
        return socket
    inner = socket or _raw_buffer()
    version = _PROXY_VERSIONS[upstream.proxy_protocol]
    config = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport(
        config=proxy_protocol_pb2.ProxyProtocolConfig(version=version), transport_socket=inner
    )
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.upstream_proxy_protocol", typed_config=packed(config)
    )


def _alpn(upstream: Upstream) -> tuple[str, ...]:
    """Return the ALPN protocols. For `auto`, Envoy's HTTP options choose them; `tcp` has none."""
    return {"http1": ("http/1.1",), "auto": (), "tcp": ()}.get(upstream.protocol, ("h2",))


def _with_sni(upstream: Upstream, config: UpstreamTls) -> UpstreamTls:
    if config.sni is not None:
        return config
    host = next((one.parsed.host for one in upstream.endpoints if one.parsed.kind == "name"), None)
    return UpstreamTls(
        sni=host,
        ca=config.ca,
        subject_alt_names=config.subject_alt_names,
        client_certificate=config.client_certificate,
        verify=config.verify,
        minimum_version=config.minimum_version,
    )
