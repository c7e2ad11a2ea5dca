"""A gateway for tests: its upstreams are stubs, its ports are any free ones on loopback, and no traffic leaves that.

Requests of tests have the header `HEADER`, by which the access log and the stubs tell whose they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path as File

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from filters.language import DataSource, Percent
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, LISTENER
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.resilience import CircuitBreaker
from xds_server.gateway.model.telemetry import NO_TELEMETRY
from xds_server.gateway.model.upstreams import Endpoint, Upstream
from xds_server.translate.composer_entry import CALLS
from xds_server.translate.listeners import HCM
from xds_server.translate.protobuf import packed

HEADER = "x-xds-test"
"""The request header with the number of an exchange. Upstreams get it too; stubs do not show it."""
LOOPBACK = "127.0.0.1"
LOG_FIELDS: Mapping[str, str] = {
    "exchange": f"%REQ({HEADER})%",
    "client": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "route": "%ROUTE_NAME%",
    "details": "%RESPONSE_CODE_DETAILS%",
}
_MOST = 1_000_000
_UNLIMITED = CircuitBreaker(
    max_connections=_MOST, max_pending=_MOST, max_requests=_MOST, min_retries=_MOST, retry_budget=Percent(100)
)
"""Tests that run at the same time would share the limits of an upstream."""
_INTERNAL = "xds/"
"""The clusters of our own services begin with this."""


def with_stubs(gateway: Gateway, socket: Callable[[str], File], jwks: bytes) -> Gateway:
    """Return a gateway that forwards only to stubs: for each upstream the Unix socket with the path `socket(name)`.

    All identity providers have the keys `jwks`. There is no telemetry, and listeners expect no PROXY protocol.
    """
    sections = gateway.sections
    providers = {
        name: replace(one, jwks=replace(one.jwks, url=None, file=None, env=None, inline=jwks.decode()))
        for name, one in sections.identity.items()
    }
    contents: dict[DataSource, bytes] = {**gateway.contents}
    contents.update((one.jwks, jwks) for one in providers.values())
    return replace(
        gateway,
        sections=replace(
            sections,
            listeners={
                name: replace(one, access_log=False, proxy_protocol=False)
                for name, one in sections.listeners.items()
            },
            upstreams={name: _stub(one, f"unix:{socket(name)}") for name, one in sections.upstreams.items()},
            identity=providers,
            telemetry=NO_TELEMETRY,
        ),
        contents=contents,
        context=replace(gateway.context, providers=providers, contents=contents),
    )


def _stub(upstream: Upstream, address: str) -> Upstream:
    """Return an upstream with one endpoint, which has no TLS and is always healthy.

    Its stub has no ALPN, so `auto` becomes what most servers choose: HTTP/2.
    """
    return replace(
        upstream,
        endpoints=(Endpoint(address=address),),
        original_destination=False,
        source_address=None,
        protocol="http2" if upstream.protocol == "auto" else upstream.protocol,
        tls=None,
        health_check=None,
        outlier_detection=None,
        circuit_breaker=_UNLIMITED,
        proxy_protocol=None,
        tcp_keepalive=None,
        envoy=None,
    )


def on_loopback(snapshot: Snapshot, upstreams: Mapping[str, object], log: File) -> Snapshot:
    """Return the resources with listeners at free ports of loopback, which log each request to the file `log`.

    Other hosts that Envoy would call by itself, such as the token endpoint of an issuer, cannot be reached.
    """
    clusters = {
        name: one if name in upstreams or name.startswith(_INTERNAL) else _unreachable(one)
        for name, one in snapshot[CLUSTER].items()
    }
    listeners = {name: _listener(one, log) for name, one in snapshot[LISTENER].items()}
    return snapshot.replacing({CLUSTER: clusters, LISTENER: listeners})


def _unreachable(resource: Resource) -> Resource:
    cluster = cluster_pb2.Cluster.FromString(resource.body)
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.ClearField("eds_cluster_config")
    cluster.ClearField("health_checks")
    cluster.load_assignment.Clear()
    cluster.load_assignment.cluster_name = cluster.name
    return Resource.of(cluster)


def _listener(resource: Resource, log: File) -> Resource:
    listener = listener_pb2.Listener.FromString(resource.body)
    if listener.name == CALLS:  # its requests are those of the composer, at a socket that only this test has
        return resource
    if listener.bind_to_port.value or not listener.HasField("bind_to_port"):
        protocol = listener.address.socket_address.protocol
        listener.address.socket_address.CopyFrom(
            address_pb2.SocketAddress(protocol=protocol, address=LOOPBACK, port_value=0)
        )
        listener.ClearField("additional_addresses")
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        _logged(chain, log)
    return Resource.of(listener)


def _logged(chain: listener_components_pb2.FilterChain, log: File) -> None:
    for one in chain.filters:
        if one.name == HCM:
            manager = hcm_pb2.HttpConnectionManager.FromString(one.typed_config.value)
            config = file_pb2.FileAccessLog(path=str(log))
            config.log_format.json_format.update(dict(LOG_FIELDS))
            manager.access_log.add(name="envoy.access_loggers.file", typed_config=packed(config))
            one.typed_config.CopyFrom(packed(manager))
