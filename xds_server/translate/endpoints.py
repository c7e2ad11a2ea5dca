"""Endpoints (EDS): the servers of an upstream, by priority and locality."""

from __future__ import annotations

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import struct_pb2

from xds_server.gateway.model.upstreams import Address, Endpoint, Upstream
from xds_server.translate import names
from xds_server.translate.protobuf import uint32

WITHOUT_TLS = struct_pb2.Struct(fields={"tls": struct_pb2.Value(string_value="off")})
"""The metadata of an endpoint without TLS, which chooses the transport socket."""


def address(parsed: Address) -> address_pb2.Address:
    """Return an endpoint's address in Envoy's form."""
    if parsed.kind == "unix":
        return address_pb2.Address(pipe=address_pb2.Pipe(path=parsed.host))
    socket = address_pb2.SocketAddress(address=parsed.host, port_value=parsed.port)
    return address_pb2.Address(socket_address=socket)


def _locality(zone: str) -> base_pb2.Locality:
    region, _, rest = zone.partition("/")
    zone_name, _, sub_zone = rest.partition("/")
    return base_pb2.Locality(region=region, zone=zone_name, sub_zone=sub_zone)


def _lb_endpoint(endpoint: Endpoint) -> endpoint_components_pb2.LbEndpoint:
    inner = endpoint_components_pb2.Endpoint(address=address(endpoint.parsed))
    if endpoint.parsed.kind == "name":
        inner.hostname = endpoint.parsed.host
    result = endpoint_components_pb2.LbEndpoint(endpoint=inner, load_balancing_weight=uint32(endpoint.weight))
    if not endpoint.tls:
        result.metadata.filter_metadata["envoy.transport_socket_match"].CopyFrom(WITHOUT_TLS)
    return result


def load_assignment(name: str, upstream: Upstream) -> endpoint_pb2.ClusterLoadAssignment:
    """Return all endpoints of an upstream. If there are none, it is empty and never missing."""
    groups: dict[tuple[int, str], list[Endpoint]] = {}
    for endpoint in upstream.endpoints:
        groups.setdefault((endpoint.priority, endpoint.zone), []).append(endpoint)
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=names.cluster(name))
    for (priority, zone), members in sorted(groups.items()):
        group = assignment.endpoints.add(priority=priority, lb_endpoints=map(_lb_endpoint, members))
        if zone:
            group.locality.CopyFrom(_locality(zone))
        if upstream.load_balancing.locality_weighted:
            group.load_balancing_weight.value = sum(member.weight for member in members)
    return assignment
