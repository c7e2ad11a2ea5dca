"""A snapshot as the proving Envoy gets it: every resource under the same name and version, and none that reaches out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_pb2

from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import BY_URL, CLUSTER, LISTENER, ResourceType

LOOPBACK, DISCARD = "127.0.0.1", 9
"""Where what Envoy would look up by DNS leads to (RFC 863); nothing answers there, and nothing is asked for it."""
_DNS = (cluster_pb2.Cluster.STRICT_DNS, cluster_pb2.Cluster.LOGICAL_DNS)


def proving_copy(snapshot: Snapshot, previous: Snapshot = EMPTY) -> Snapshot:
    """What is for Envoys, changed so that it serves nobody. `previous` is the copy before, whose parts are used again."""
    types = [type_ for type_ in snapshot if type_.url in BY_URL]
    return Snapshot.of(
        {type_: list(_copies(type_, snapshot[type_], previous[type_])) for type_ in types},
        {type_: snapshot.version(type_) for type_ in types},
    )


def _copies(
    type_: ResourceType, items: Mapping[str, Resource], previous: Mapping[str, Resource]
) -> Iterator[Resource]:
    copy = _COPY.get(type_)
    for name, one in items.items():
        before = previous.get(name)
        if copy is None:
            yield one
        elif before is not None and before.version == one.version:
            yield before
        else:
            yield Resource.from_bytes(name, copy(one.body), one.version)


def _listener(body: bytes) -> bytes:
    """TCP listeners open no port. Envoy has UDP listeners open one: any that is free, on loopback."""
    message = listener_pb2.Listener.FromString(body)
    socket = message.address.socket_address
    if socket.protocol == address_pb2.SocketAddress.UDP:
        socket.CopyFrom(address_pb2.SocketAddress(protocol=socket.protocol, address=LOOPBACK, port_value=0))
    else:
        message.bind_to_port.value = False
    return message.SerializeToString(deterministic=True)


def _cluster(body: bytes) -> bytes:
    """No health checks, and no names to look up: Envoy would wait for both before it goes on."""
    message = cluster_pb2.Cluster.FromString(body)
    message.ClearField("health_checks")
    if message.type in _DNS and not message.HasField("cluster_type"):
        message.type = cluster_pb2.Cluster.STATIC
        for locality in message.load_assignment.endpoints:
            for one in locality.lb_endpoints:
                one.endpoint.address.socket_address.address = LOOPBACK
                one.endpoint.address.socket_address.port_value = DISCARD
    return message.SerializeToString(deterministic=True)


_COPY: Mapping[ResourceType, Callable[[bytes], bytes]] = {LISTENER: _listener, CLUSTER: _cluster}
