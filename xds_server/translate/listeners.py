"""Listeners (LDS): ports with their filter chain, without anything that changes with a route."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import (
    address_pb2,
    config_source_pb2,
    extension_pb2,
    protocol_pb2,
)
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.request_id.uuid.v3 import uuid_pb2
from google.protobuf import any_pb2

from filters import body_limit, unverified_certificates
from filters.error_overrides import ErrorOverride
from filters.model.geoip import GEO_HEADERS
from filters.model.identity import IDENTITY_HEADERS
from filters.policy import HttpFilter, header
from filters.uuid7 import GIVEN, uuid7_filter
from xds_server.gateway.model.hosts import ANY_HOST
from xds_server.gateway.model.listeners import DownstreamTls, Listener
from xds_server.gateway.model.ports import Port
from xds_server.gateway.model.telemetry import Telemetry
from xds_server.gateway.raw import merged
from xds_server.translate import compositions, local_replies, names, routes, stand_ins, streams, tls
from xds_server.translate.access_log import access_logs, connection_logs
from xds_server.translate.metrics import metrics
from xds_server.translate.protobuf import ads, boolean, duration, packed, uint32
from xds_server.translate.tracing import CONTEXT_HEADERS, tracing
from xds_server.translate.virtual_hosts import HTTPS

HCM = "envoy.filters.network.http_connection_manager"
EARLY_HEADERS = "envoy.http.early_header_mutation.header_mutation"
_RESERVED = ("x-envoy-attempt-count", "x-envoy-is-timeout-retry", "x-original-url", "x-rewrite-url")
"""Request headers that only the gateway may set, or with which some frameworks use another path than the gateway."""
_PROXIES = (
    *("forwarded", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-server"),
    "x-real-ip",
)
"""Request headers that are accepted only from trusted proxies, in addition to those that Envoy itself handles."""
_NO_HOST = "localhost"
"""The host of an HTTP/1.0 request without a Host."""
_SLASHES = {
    "redirect": hcm_pb2.HttpConnectionManager.UNESCAPE_AND_REDIRECT,
    "reject": hcm_pb2.HttpConnectionManager.REJECT_REQUEST,
    "unescape": hcm_pb2.HttpConnectionManager.UNESCAPE_AND_FORWARD,
    "keep": hcm_pb2.HttpConnectionManager.KEEP_UNCHANGED,
}
_UNDERSCORES = {
    "reject": protocol_pb2.HttpProtocolOptions.REJECT_REQUEST,
    "drop": protocol_pb2.HttpProtocolOptions.DROP_HEADER,
    "allow": protocol_pb2.HttpProtocolOptions.ALLOW,
}


@dataclass(frozen=True, slots=True)
class Common:
    """The parts of the gateway that all listeners share.

    `filters` is the chain of HTTP filters, `logs` are the access logs of policies, `errors` the overrides of the
    gateway's own responses by reason. `routes_choose` is true if some route says which of its requests are logged.
    """

    filters: Sequence[HttpFilter]
    logs: Sequence[accesslog_pb2.AccessLog]
    errors: Mapping[str, ErrorOverride]
    telemetry: Telemetry
    routes_choose: bool
    few: Sequence[HttpFilter] | None = None
    """The chain of listeners with `bind: false`, of which there may be thousands; None if it is `filters` too."""
    explains: bool = True
    """Whether the gateway's own responses have a reason and a body that explains it."""
    located: bool = False
    """True if Envoy looks up the country or the autonomous system of clients."""


def alt_svc(listener: Listener) -> str | None:
    """Return the Alt-Svc header (RFC 7838) that announces HTTP/3, or None."""
    return f'h3=":{listener.port}"; ma=86400' if listener.http3 else None


def listeners(port: Port, parts: Sequence[Port], common: Common) -> Iterator[listener_pb2.Listener]:
    """Return the TCP listener of a port, and the QUIC listener if HTTP/3 is enabled; or the UDP listener.

    `parts` have the connections of the port to certain destinations. Raises Mistake for raw fields.
    """
    if port.transport == "udp":
        yield from (merged(one, port.first.envoy) for one in _udp(port, common))
        return
    yield merged(_tcp(port, parts, common), port.first.envoy)
    if any(listener.http3 for listener in port.listeners.values()):
        yield _quic(port, common)


def _tcp(port: Port, parts: Sequence[Port], common: Common) -> listener_pb2.Listener:
    """Return the TCP listener of a port, with one filter chain for plain HTTP, or some for each listener otherwise.

    A filter chain does not depend on other listeners of the port: Envoy drains only the chains that changed.
    """
    result = listener_pb2.Listener(
        name=names.listener(port),
        address=_address(port),
        per_connection_buffer_limit_bytes=uint32(port.first.limits.connection_buffer),
    )
    if port.first.original_destination:
        result.use_original_dst.value = True
    if not port.first.bind:
        result.bind_to_port.value = False
    if port.first.proxy_protocol:
        config = packed(proxy_protocol_pb2.ProxyProtocol())
        result.listener_filters.add(name="envoy.filters.listener.proxy_protocol", typed_config=config)
    if any(one.reads_server_names for one in (port, *parts)):
        inspector = packed(tls_inspector_pb2.TlsInspector())
        result.listener_filters.add(name="envoy.filters.listener.tls_inspector", typed_config=inspector)
    result.filter_chains.extend(_chains(port, common))
    for part in parts:
        for chain in _chains(part, common):
            chain.filter_chain_match.destination_port.value = part.destination or 0
            result.filter_chains.append(chain)
    return result


def _chains(port: Port, common: Common) -> list[listener_components_pb2.FilterChain]:
    if (not port.first.bind or port.destination is not None) and common.few is not None:
        common = replace(common, filters=common.few, explains=False)
    if port.plain:
        return [_plain(port, common)]
    found: list[listener_components_pb2.FilterChain] = []
    for name, listener in port.listeners.items():
        if listener.protocol == "tcp":
            found += _streams(port, name, listener, common)
        elif listener.tls is not None:
            found.append(_secure(port, name, listener, listener.tls, common))
    # without any, Envoy rejects a listener
    return found or [listener_components_pb2.FilterChain(name=next(iter(port.listeners)))]


def _plain(port: Port, common: Common) -> listener_components_pb2.FilterChain:
    label, first = names.statistics(port), next(iter(port.listeners))
    strip_port = all(one.redirect_to_https in (True, HTTPS) for one in port.listeners.values())
    manager = _connection_manager(label, names.routes(port, first), port.first, common, strip_port=strip_port)
    return listener_components_pb2.FilterChain(
        name="" if port.destination is None else first,
        filters=[*_connection_limit(label, port.first), _network(manager)],
    )


def _secure(
    port: Port, name: str, listener: Listener, config: DownstreamTls, common: Common
) -> listener_components_pb2.FilterChain:
    manager = _connection_manager(name, names.routes(port, name), listener, common)
    return listener_components_pb2.FilterChain(
        name=name,
        filter_chain_match=_server_names(port.own(name)),
        filters=[*_connection_limit(name, listener), _network(manager)],
        transport_socket=tls.downstream(name, config, tls.HTTP),
        transport_socket_connect_timeout=duration(listener.timeouts.tls_handshake),
    )


def _streams(
    port: Port, name: str, listener: Listener, common: Common
) -> Iterator[listener_components_pb2.FilterChain]:
    """Yield the filter chain of each stream route of a listener, and one that closes connections without any.

    Without the latter, the filter chain of another listener with wider hosts would take these connections.
    """
    by_route: dict[str | None, list[str]] = {}
    for host, route in port.server_names(name).items():
        by_route.setdefault(route, []).append(host)
    for route, hosts in sorted(by_route.items(), key=lambda one: one[0] or ""):
        chain = listener_components_pb2.FilterChain(
            name=names.filter_chain(name, route), filter_chain_match=_server_names(hosts)
        )
        if route is not None:
            logs = connection_logs(listener, common.telemetry, route)
            chain.filters.extend(_connection_limit(names.stream_statistics(route), listener))
            chain.filters.extend(streams.authorization(route, port.streams[name][route]))
            chain.filters.append(streams.tcp_proxy(route, port.streams[name][route], listener, logs))
        if listener.tls is not None:
            chain.transport_socket.CopyFrom(tls.downstream(name, listener.tls, ()))
            chain.transport_socket_connect_timeout.CopyFrom(duration(listener.timeouts.tls_handshake))
        yield chain


def _udp(port: Port, common: Common) -> Iterator[listener_pb2.Listener]:
    """Yield the UDP listener of a port, if it has a stream route."""
    (listener,) = port.listeners.values()
    for routes_of_listener in port.streams.values():
        for name, route in routes_of_listener.items():
            result = listener_pb2.Listener(name=names.listener(port), address=_address(port, udp=True))
            result.udp_listener_config.downstream_socket_config.SetInParent()
            logs = connection_logs(listener, common.telemetry, name)
            result.listener_filters.append(streams.udp_proxy(name, route, logs))
            yield result


def _server_names(hosts: Collection[str]) -> listener_components_pb2.FilterChainMatch | None:
    """Return the condition on the server name (SNI) of connections; None if `*` is among the hosts."""
    return None if ANY_HOST in hosts else listener_components_pb2.FilterChainMatch(server_names=sorted(hosts))


def _quic(port: Port, common: Common) -> listener_pb2.Listener:
    result = listener_pb2.Listener(
        name=names.quic(port),
        address=_address(port, udp=True),
        per_connection_buffer_limit_bytes=uint32(port.first.limits.connection_buffer),
    )
    for name, listener in port.listeners.items():
        if listener.http3:
            assert listener.tls is not None, "checked when the gateway was read"
            manager = _connection_manager(name, names.routes(port, name), listener, common)
            manager.codec_type = hcm_pb2.HttpConnectionManager.HTTP3
            manager.http3_protocol_options.quic_protocol_options.max_concurrent_streams.value = (
                listener.limits.max_concurrent_streams
            )
            result.filter_chains.add(
                name=name,
                filter_chain_match=_server_names(port.own(name)),
                filters=[_network(manager)],
                transport_socket=tls.quic(name, listener.tls),
            )
    result.udp_listener_config.quic_options.SetInParent()
    return result


def _address(port: Port, *, udp: bool = False) -> address_pb2.Address:
    socket = address_pb2.SocketAddress(
        address=port.address,
        port_value=port.number,
        protocol=address_pb2.SocketAddress.UDP if udp else address_pb2.SocketAddress.TCP,
        ipv4_compat=port.address == "::",
    )
    return address_pb2.Address(socket_address=socket)


def _network(manager: hcm_pb2.HttpConnectionManager) -> listener_components_pb2.Filter:
    return listener_components_pb2.Filter(name=HCM, typed_config=packed(manager))


def _connection_limit(label: str, listener: Listener) -> Iterator[listener_components_pb2.Filter]:
    if listener.limits.max_connections is not None:
        limit = connection_limit_pb2.ConnectionLimit(stat_prefix=label)
        limit.max_connections.value = listener.limits.max_connections
        yield listener_components_pb2.Filter(
            name="envoy.filters.network.connection_limit", typed_config=packed(limit)
        )


def _connection_manager(
    label: str, table: str, listener: Listener, common: Common, *, strip_port: bool = False
) -> hcm_pb2.HttpConnectionManager:
    """Return the connection manager with Envoy's advice for an edge proxy and the listener's own limits.

    `label` is the prefix of its statistics, `table` the name of its route configuration. `strip_port` removes the port
    of a host, which a redirect to another scheme would keep.
    """
    timeouts, limits = listener.timeouts, listener.limits
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=label,
        rds=hcm_pb2.Rds(config_source=ads(), route_config_name=table),
        http_filters=[
            *_first_filters(listener),
            *map(_http_filter, common.filters),
            *_own_filters(listener, common),
        ],
        early_header_mutation_extensions=[_without_claims(listener, common)],
        use_remote_address=boolean(True),
        xff_num_trusted_hops=listener.trusted_proxies,
        internal_address_config=_no_internal_addresses(),
        strip_any_host_port=strip_port,
        normalize_path=boolean(True),
        merge_slashes=listener.merge_slashes,
        path_with_escaped_slashes_action=_SLASHES[listener.escaped_slashes],
        strip_trailing_host_dot=True,
        preserve_external_request_id=listener.trust_request_id,
        request_id_extension=hcm_pb2.RequestIDExtension(typed_config=_whole_request_ids()),
        server_name=listener.server_name,
        request_timeout=duration(timeouts.request),
        request_headers_timeout=duration(timeouts.headers),
        stream_idle_timeout=duration(timeouts.stream_idle),
        drain_timeout=duration(timeouts.drain),
        max_request_headers_kb=uint32(-(-limits.max_headers // 1024)),
        common_http_protocol_options=_common_options(listener),
        http_protocol_options=_http1_options(listener),
        http2_protocol_options=_http2_options(listener),
        local_reply_config=local_replies.local_reply_config(
            common.errors, with_version=common.telemetry.problem_version
        )
        if common.explains
        else None,
        upgrade_configs=[
            hcm_pb2.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket", enabled=boolean(False))
        ],
    )
    manager.access_log.extend(access_logs(listener, common.telemetry, by_route=common.routes_choose))
    if common.telemetry.metrics is not None:
        manager.access_log.extend(metrics(common.telemetry.metrics))
    manager.access_log.extend(common.logs)
    if common.telemetry.tracing is not None:
        manager.tracing.CopyFrom(tracing(common.telemetry.tracing))
    return manager


def _without_claims(listener: Listener, common: Common) -> extension_pb2.TypedExtensionConfig:
    """Remove headers with which a client could claim an identity or another request towards upstreams."""
    underscores = listener.underscores_in_headers == "allow" or listener.envoy is not None
    known = () if listener.trust_identity else IDENTITY_HEADERS
    known = (*known, *(GEO_HEADERS if common.located else ()))
    claims = (name for name in known if underscores or "_" not in name)
    traces = common.telemetry.tracing
    context = CONTEXT_HEADERS if traces is not None and not traces.trust_context else ()
    removed = (*_RESERVED, *claims, *(() if listener.trusted_proxies else _PROXIES), *context)
    mutation = header_mutation_pb2.HeaderMutation()
    for name in removed:
        mutation.mutations.add(remove=name)
    if listener.request_id_format == "uuid7":
        mutation.mutations.add(remove=GIVEN)
        if listener.trust_request_id:
            mutation.mutations.add(append=header(GIVEN, "%REQ(X-REQUEST-ID)%"))
    return extension_pb2.TypedExtensionConfig(name=EARLY_HEADERS, typed_config=packed(mutation))


def _whole_request_ids() -> any_pb2.Any:
    """Return the maker of request ids. Envoy's default writes the reason for a trace into a digit of every id, also of
    those that it keeps, so that logs of the client and of the gateway would differ.
    """
    return packed(uuid_pb2.UuidRequestIdConfig(pack_trace_reason=boolean(False)))


def _no_internal_addresses() -> hcm_pb2.HttpConnectionManager.InternalAddressConfig:
    """Return a range without clients. An empty list would mean private networks, whose clients could then set
    x-envoy-* headers and request ids.
    """
    unused = address_pb2.CidrRange(address_prefix="255.255.255.255", prefix_len=uint32(32))
    return hcm_pb2.HttpConnectionManager.InternalAddressConfig(cidr_ranges=[unused])


def _common_options(listener: Listener) -> protocol_pb2.HttpProtocolOptions:
    options = protocol_pb2.HttpProtocolOptions(
        idle_timeout=duration(listener.timeouts.idle),
        max_headers_count=uint32(listener.limits.max_header_count),
        headers_with_underscores_action=_UNDERSCORES[listener.underscores_in_headers],
    )
    if listener.timeouts.connection:
        options.max_connection_duration.CopyFrom(duration(listener.timeouts.connection))
    if listener.limits.max_requests_per_connection is not None:
        options.max_requests_per_connection.value = listener.limits.max_requests_per_connection
    return options


def _http1_options(listener: Listener) -> protocol_pb2.Http1ProtocolOptions:
    """Ignore upgrades that are not offered (RFC 9110 section 7.8). HTTP/1.0 may have no Host."""
    options = protocol_pb2.Http1ProtocolOptions()
    for regex in _all_but("websocket"):
        options.ignore_http_11_upgrade.add().safe_regex.regex = regex
    if listener.http10:
        options.accept_http_10, options.default_host_for_http_10 = True, _NO_HOST
    return options


def _all_but(word: str) -> Iterator[str]:
    """Yield expressions that match every text but one, in any case. RE2 has no other way to express that.

    One expression would be too large for an Envoy with another bootstrap, which accepts 100 instructions.
    """
    for at, letter in enumerate(word):
        yield f"(?i){word[:at]}(?:[^{letter}].*)?"
    yield f"(?i){word}.+"


def _http2_options(listener: Listener) -> protocol_pb2.Http2ProtocolOptions:
    return protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=uint32(listener.limits.max_concurrent_streams),
        initial_stream_window_size=uint32(64 * 1024),
        initial_connection_window_size=uint32(1024 * 1024),
        allow_connect=True,
    )


def _http_filter(http_filter: HttpFilter) -> hcm_pb2.HttpFilter:
    if http_filter.dynamic:
        types = {packed(http_filter.config).type_url, packed(stand_ins.CLOSED_FILTER).type_url}
        discovery = config_source_pb2.ExtensionConfigSource(config_source=ads(), type_urls=sorted(types))
        return hcm_pb2.HttpFilter(
            name=http_filter.name, config_discovery=discovery, disabled=not http_filter.always
        )
    return hcm_pb2.HttpFilter(
        name=http_filter.name, typed_config=packed(http_filter.config), disabled=not http_filter.always
    )


def _first_filters(listener: Listener) -> Iterator[hcm_pb2.HttpFilter]:
    if listener.request_id_format == "uuid7":
        yield _http_filter(uuid7_filter())
    if listener.accepts_any_certificate:
        yield _http_filter(unverified_certificates.filter_of_listener())


def _own_filters(listener: Listener, common: Common) -> Iterator[hcm_pb2.HttpFilter]:
    """Yield filters that are not policies: that of the composer, body limits, session affinity by cookie, and the router."""
    if common.explains:
        yield _http_filter(compositions.http_filter(with_version=common.telemetry.problem_version))
    yield from map(_http_filter, body_limit.http_filters(listener.limits.max_body))
    session = packed(stateful_session_pb2.StatefulSession())
    yield hcm_pb2.HttpFilter(name=routes.STATEFUL_SESSION, typed_config=session, disabled=True)
    router = router_pb2.Router(suppress_envoy_headers=True)
    yield hcm_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=packed(router))
