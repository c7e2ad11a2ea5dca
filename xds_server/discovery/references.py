"""The references of a cluster, a listener or a route configuration to other types, read from its message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from xds_server.discovery.snapshot import Reference, Resource
from xds_server.discovery.types import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    SECRET,
    ResourceType,
)

_MESSAGES: Mapping[ResourceType, type[Message]] = {
    CLUSTER: cluster_pb2.Cluster,
    LISTENER: listener_pb2.Listener,
    ROUTE: route_pb2.RouteConfiguration,
}

REFERRING = (CLUSTER, LISTENER)
"""The types that make Envoy request resources of other types."""


_ANY = b"type.googleapis.com/"
_PLAIN = _ANY + b"envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
"""All references of a cluster but its endpoints are in an Any of another type, or name another type."""


def references(type_: ResourceType, resource: Resource) -> frozenset[Reference]:
    """Return the resources that `resource` makes Envoy request over ADS: endpoints, secrets, routes, extensions."""
    if type_ not in REFERRING:
        return frozenset()
    if resource.needs is None:
        object.__setattr__(resource, "needs", _read(type_, resource.body))
    assert resource.needs is not None
    return resource.needs


def _read(type_: ResourceType, body: bytes) -> frozenset[Reference]:
    """Return the references of a serialized message, or nothing if it cannot be parsed: the client rejects that."""
    try:
        message: Any = _MESSAGES[type_].FromString(body)
        if type_ == CLUSTER and body.count(_ANY) == body.count(_PLAIN):
            return frozenset(_endpoints(message))
        return frozenset(_walk(message, _DISCOVERED))
    except DecodeError:
        return frozenset()


def _order(reference: Reference) -> tuple[int, str]:
    return reference[0].order, reference[1]


def _endpoints(cluster: Any) -> Iterator[Reference]:
    if cluster.type == cluster_pb2.Cluster.EDS and cluster.eds_cluster_config.eds_config.HasField("ads"):
        yield ENDPOINT, cluster.eds_cluster_config.service_name or cluster.name


def _secret(config: Any) -> Iterator[Reference]:
    if config.sds_config.HasField("ads"):
        yield SECRET, config.name


def _rds(rds: Any) -> Iterator[Reference]:
    if rds.config_source.HasField("ads"):
        yield ROUTE, rds.route_config_name


def _extension(filter_: Any) -> Iterator[Reference]:
    if filter_.config_discovery.config_source.HasField("ads"):
        yield EXTENSION_CONFIG, filter_.name


_Table = Mapping[str, Callable[[Any], Iterator[Reference]]]
_HTTP = "envoy.extensions.filters.network.http_connection_manager.v3"
_DISCOVERED: _Table = {
    "envoy.config.cluster.v3.Cluster": _endpoints,
    "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig": _secret,
    f"{_HTTP}.Rds": _rds,
    f"{_HTTP}.HttpFilter": _extension,
}


def _walk(message: Message, table: _Table) -> Iterator[Reference]:
    """Yield every reference below a message. The content of an Any of an unknown type is skipped."""
    if isinstance(message, any_pb2.Any):
        inner = _unpacked(message)
        if inner is not None:
            yield from _walk(inner, table)
        return
    read = table.get(message.DESCRIPTOR.full_name)
    if read is not None:
        yield from read(message)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in _children(field, value):
            yield from _walk(child, table)


def _children(field: Any, value: Any) -> Iterator[Message]:
    if field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            yield from value.values()
    elif field.is_repeated:
        yield from value
    else:
        yield value


def _unpacked(packed: any_pb2.Any) -> Message | None:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.type_url.rpartition("/")[2])
    except KeyError:
        return None
    return message_factory.GetMessageClass(descriptor).FromString(packed.value)
