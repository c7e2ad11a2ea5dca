"""A snapshot for the proving Envoy: every resource has the same name and version, and none connects to other hosts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakValueDictionary

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2

from protos.wire_format import delimited, split
from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import BY_URL, CLUSTER, LISTENER, ROUTE, SECRET, ResourceType
from xds_server.translate import host_routes, names, tls_secrets

LOOPBACK, DISCARD = "127.0.0.1", 9
"""The address of endpoints that Envoy would look up by DNS (RFC 863). Envoy never connects to it."""
_ROUTE = route_components_pb2.Route
_ROUTES = route_components_pb2.VirtualHost.ROUTES_FIELD_NUMBER
_VIRTUAL_HOSTS = route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER
_DNS = (cluster_pb2.Cluster.STRICT_DNS, cluster_pb2.Cluster.LOGICAL_DNS)


_NOTHING: Mapping[str, Resource] = {}
RouteOfHost = tuple[str, bytes]
"""The name of a virtual host and a serialized route of it."""


def proving_copy(
    snapshot: Snapshot, previous: Snapshot = EMPTY, proved: Mapping[str, Resource] = _NOTHING
) -> Snapshot:
    """Return the resources for Envoys, changed so that they serve no client.

    Parts of the copy `previous` are used again. `proved` are complete, accepted route configurations: of a new
    version, only the added routes have to be proved, because each route is good or bad by itself and Envoy needs some
    time for thousands.
    """
    types = [type_ for type_ in snapshot if type_.url in BY_URL]
    copies = {**_COPY, ROUTE: lambda one: _routes(one, proved.get(one.name))}
    resources = {type_: list(_copies(copies.get(type_), snapshot[type_], previous[type_])) for type_ in types}
    if snapshot[SECRET]:
        resources.setdefault(CLUSTER, []).extend(tls_secrets.probes(snapshot))
    return Snapshot.of(resources, {type_: snapshot.version(type_) for type_ in types})


def _copies(
    copy: Callable[[Resource], bytes] | None,
    items: Mapping[str, Resource],
    previous: Mapping[str, Resource],
) -> Iterator[Resource]:
    for name, resource in items.items():
        before = previous.get(name)
        if copy is None:
            yield resource
        elif before is not None and before.version == resource.version:
            yield before
        else:
            yield Resource.from_bytes(name, copy(resource), resource.version)


def _listener(resource: Resource) -> bytes:
    """Return a listener without an open port; a UDP listener gets any free port on loopback, because Envoy opens one.

    So does a listener at a Unix socket: Envoy binds its path whatever `bind_to_port` says, and takes the socket away from the
    Envoy that serves.

    TLS needs a certificate. All other certificates, and authorities, are proved separately.
    """
    message = listener_pb2.Listener.FromString(resource.body)
    tls_secrets.separate(message, keep=1)
    udp = message.address.socket_address.protocol == address_pb2.SocketAddress.UDP
    if udp or message.address.HasField("pipe"):
        protocol = address_pb2.SocketAddress.UDP if udp else address_pb2.SocketAddress.TCP
        message.address.socket_address.CopyFrom(
            address_pb2.SocketAddress(protocol=protocol, address=LOOPBACK, port_value=0)
        )
    if not udp:
        message.bind_to_port.value = False
    return message.SerializeToString(deterministic=True)


def _cluster(cluster: Resource) -> bytes:
    """Return a cluster without health checks and DNS names, because Envoy would wait for both."""
    message = cluster_pb2.Cluster.FromString(cluster.body)
    if message.HasField("transport_socket"):
        tls_secrets.separate(message, keep=0)
    if message.HasField("cluster_type"):
        message.ClearField("health_checks")
    elif message.health_checks:
        message.type = cluster_pb2.Cluster.STATIC
        message.ClearField("eds_cluster_config")
        message.load_assignment.Clear()
        message.load_assignment.cluster_name = message.name
    elif message.type in _DNS:
        message.type = cluster_pb2.Cluster.STATIC
        for locality in message.load_assignment.endpoints:
            for one in locality.lb_endpoints:
                one.endpoint.address.socket_address.address = LOOPBACK
                one.endpoint.address.socket_address.port_value = DISCARD
    return message.SerializeToString(deterministic=True)


def _routes(table: Resource, proved: Resource | None) -> bytes:
    """Return every virtual host, so that all domains are proved together, with the routes that are not proved yet."""
    if proved is None:
        return table.body
    before = {host.name: host for host in _hosts(proved.body)}
    return only(table, [(host.name, body) for host in _hosts(table.body) for body in host.not_in(before)])


def only(table: Resource, chosen: Collection[RouteOfHost]) -> bytes:
    """Return a route configuration with all its virtual hosts, and only the chosen routes."""
    by_host: dict[str, list[bytes]] = {}
    for name, body in sorted(chosen):
        by_host.setdefault(name, []).append(delimited(_ROUTES, body))
    head, _ = split(table.body, _VIRTUAL_HOSTS)
    hosts = [host.empty + b"".join(by_host.get(host.name, ())) for host in _hosts(table.body)]
    return head + b"".join([delimited(_VIRTUAL_HOSTS, host) for host in hosts])


def routes_of(table: Resource) -> frozenset[RouteOfHost]:
    """Return every route of a route configuration, with the name of its virtual host."""
    return frozenset((host.name, body) for host in _hosts(table.body) for body in host.routes)


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Host:
    """A virtual host: without its routes, and its routes. `body` is both, as Envoy gets it."""

    body: bytes
    name: str
    empty: bytes
    routes: frozenset[bytes]

    def not_in(self, before: Mapping[str, _Host]) -> frozenset[bytes]:
        """Return the routes that the virtual host with the same name lacks."""
        known = before.get(self.name)
        if known is self:
            return frozenset()
        return self.routes if known is None else self.routes - known.routes


_KNOWN: WeakValueDictionary[bytes, _Host] = WeakValueDictionary()
"""The virtual hosts of the last route configurations, by their bytes. Most are the same after a change."""


@lru_cache(maxsize=8)
def _hosts(table: bytes) -> tuple[_Host, ...]:
    """Return the virtual hosts of a serialized RouteConfiguration."""
    return tuple([_host(body) for body in split(table, _VIRTUAL_HOSTS)[1]])


def _host(body: bytes) -> _Host:
    known = _KNOWN.get(body)
    if known is None:
        message = route_components_pb2.VirtualHost.FromString(body)
        routes = frozenset(host_routes.bodies(message))
        del message.routes[:]
        message.ClearField("matcher")
        known = _Host(body, message.name, message.SerializeToString(deterministic=True), routes)
        _KNOWN[body] = known
    return known


def route_name(route: bytes) -> str:
    """Return the name of a serialized route."""
    name: str = _ROUTE.FromString(route).name
    return name


def deed(route: bytes) -> bytes:
    """Return the action of a route, without name and condition: if an action is bad, all routes with it are bad."""
    message = _ROUTE.FromString(route)
    message.ClearField("name")
    message.ClearField("match")
    return message.SerializeToString(deterministic=True)


def with_any_condition(route: bytes) -> bytes:
    """Return the same route for every path, so that only its action is proved."""
    message = _ROUTE.FromString(route)
    message.match.Clear()
    message.match.prefix = "/"
    return message.SerializeToString(deterministic=True)


def closed(route: bytes) -> bytes:
    """Return the same route with a 503 for every request that it matches.

    Without it, such a request could match another route, with fewer policies.
    """
    message = _ROUTE.FromString(route)
    result = _ROUTE(name=names.rejected(message.name), match=message.match)
    result.direct_response.status = 503
    return result.SerializeToString(deterministic=True)


def replaced(table: Resource, instead: Mapping[bytes, bytes | None]) -> Resource:
    """Return a route configuration with some routes replaced; None removes a route."""
    message = route_pb2.RouteConfiguration.FromString(table.body)
    hosts = [host_routes.change(host, lambda body: instead.get(body, body)) for host in message.virtual_hosts]
    return Resource.of(message) if any(hosts) else table


_COPY: Mapping[ResourceType, Callable[[Resource], bytes]] = {LISTENER: _listener, CLUSTER: _cluster}
