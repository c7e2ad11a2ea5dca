"""A snapshot as one static bootstrap that Envoy runs without a control plane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, SECRET
from xds_server.translate import host_routes
from xds_server.translate.listeners import HCM
from xds_server.translate.protobuf import packed
from xds_server.translate.runtime import runtime

_REFERENCE = secret_pb2.SdsSecretConfig.DESCRIPTOR.full_name
_SOCKET = base_pb2.TransportSocket.DESCRIPTOR.full_name


def bootstrap(
    snapshot: Snapshot, private_keys: Mapping[str, base_pb2.DataSource] | None = None
) -> bootstrap_pb2.Bootstrap:
    """Return a bootstrap with every reference of the snapshot resolved into static resources.

    `private_keys` has the source of the private key by name of a secret: Envoy itself reads it, so that the result
    has no private key.
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
        _static(cluster.transport_socket.typed_config)
    return cluster


def _listener(listener: listener_pb2.Listener, snapshot: Snapshot) -> listener_pb2.Listener:
    for chain in listener.filter_chains:
        if chain.HasField("transport_socket"):
            _static(chain.transport_socket.typed_config)
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
            host_routes.change(host, _static_route)
    for one in manager.http_filters:
        if one.HasField("config_discovery"):
            body = snapshot[EXTENSION_CONFIG][one.name].body
            one.typed_config.CopyFrom(extension_pb2.TypedExtensionConfig.FromString(body).typed_config)
    return manager


def _static_route(body: bytes) -> bytes:
    route = route_components_pb2.Route.FromString(body)
    for config in route.typed_per_filter_config.values():
        _static(config)
    return route.SerializeToString(deterministic=True)


def _static(config: any_pb2.Any) -> None:
    """Resolve the references to secrets in a message, and in the transport sockets inside of it."""
    type_ = _class(config.type_url.rpartition("/")[2])
    if type_ is not None and _may_refer(type_.DESCRIPTOR):
        message = type_.FromString(config.value)
        if _resolved(message):
            config.CopyFrom(packed(message))


def _resolved(message: Message) -> bool:
    """Change references so that Envoy finds the secrets by name alone. Returns True if there were any."""
    if message.DESCRIPTOR.full_name == _REFERENCE:
        message.ClearField("sds_config")
        return True
    found = False
    for field, value in message.ListFields():
        if field.message_type is None or not _may_refer(field.message_type):
            continue
        for inner in _messages(field, value):
            if field.message_type.full_name == _SOCKET:
                _static(inner.typed_config)
                found = True
            else:
                found = _resolved(inner) or found
    return found


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return value.values() if kind.fields_by_name["value"].message_type else ()
    return value if field.is_repeated else (value,)


@cache
def _may_refer(kind: Descriptor) -> bool:
    """True if messages of this type can contain a reference to a secret or a transport socket at any depth."""
    seen, waiting = {kind.full_name}, [kind]
    for one in waiting:
        if one.full_name in (_REFERENCE, _SOCKET):
            return True
        for field in one.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                waiting.append(inner)
    return False


@cache
def _class(full_name: str) -> type[Message] | None:
    try:
        return message_factory.GetMessageClass(Default().FindMessageTypeByName(full_name))
    except KeyError:
        return None
