"""The proving copy has every name and version, opens no port, and reaches out to nobody."""

from __future__ import annotations

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2

from tests.support.resources import cluster, endpoint, listener, routes
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, custom
from xds_server.translate.proving_copy import closed, proving_copy, replaced, route_name, routes_of

RULE = custom("rule", "xds.Rule")


def _copied_cluster(message: cluster_pb2.Cluster) -> cluster_pb2.Cluster:
    copy = proving_copy(Snapshot.of({CLUSTER: [Resource.of(message)]}))
    return cluster_pb2.Cluster.FromString(copy[CLUSTER][message.name].body)


def _copied_listener(message: listener_pb2.Listener) -> listener_pb2.Listener:
    copy = proving_copy(Snapshot.of({LISTENER: [Resource.of(message)]}))
    return listener_pb2.Listener.FromString(copy[LISTENER][message.name].body)


def _snapshot(version: str = "") -> Snapshot:
    return Snapshot.of(
        {
            CLUSTER: [cluster("a", version), cluster("b")],
            ENDPOINT: [endpoint("a"), endpoint("b")],
            LISTENER: [listener("l", "r")],
            ROUTE: [routes("r", {"/": "a"})],
            RULE: [Resource.from_bytes("x", b"y")],
        }
    )


def test_names_and_versions_are_those_of_the_original() -> None:
    """Types of our own are left out."""
    snapshot = _snapshot()
    copy = proving_copy(snapshot)
    assert set(copy) == {CLUSTER, ENDPOINT, LISTENER, ROUTE}
    for type_ in copy:
        assert copy.version(type_) == snapshot.version(type_)
        assert {n: one.version for n, one in copy[type_].items()} == {
            n: one.version for n, one in snapshot[type_].items()
        }


def test_what_did_not_change_is_not_copied_again() -> None:
    first = proving_copy(_snapshot())
    second = proving_copy(_snapshot("2"), first)
    assert second[CLUSTER]["b"] is first[CLUSTER]["b"]
    assert second[LISTENER]["l"] is first[LISTENER]["l"]
    assert second[CLUSTER]["a"].version != first[CLUSTER]["a"].version


def _hosts(proved: dict[str, str] | None, wanted: dict[str, str]) -> dict[str, list[str]]:
    """The prefixes by virtual host that are to be judged."""
    known = {} if proved is None else {"r": routes("r", proved)}
    copy = proving_copy(Snapshot.of({ROUTE: [routes("r", wanted)]}), proved=known)
    message = route_pb2.RouteConfiguration.FromString(copy[ROUTE]["r"].body)
    return {host.name: [one.match.prefix for one in host.routes] for host in message.virtual_hosts}


def test_of_routes_only_what_was_not_proved_before_is_judged() -> None:
    known = {"/a": "a", "/b": "b"}
    assert _hosts(None, known) == {"all": ["/a", "/b"]}
    assert _hosts(known, {**known, "/c": "a"}) == {"all": ["/c"]}
    assert _hosts(known, {"/b": "a", "/a": "a"}) == {"all": ["/b"]}
    assert _hosts(known, {"/b": "b"}) == {"all": []}


def test_a_route_is_judged_again_in_a_virtual_host_that_did_not_have_it() -> None:
    message = route_pb2.RouteConfiguration.FromString(routes("r", {"/a": "a"}).body)
    other = message.virtual_hosts.add()
    other.CopyFrom(message.virtual_hosts[0])
    other.name, other.domains[0] = "other", "example.com"
    snapshot = Snapshot.of({ROUTE: [Resource.of(message)]})
    copy = proving_copy(snapshot, proved={"r": routes("r", {"/a": "a"})})
    found = route_pb2.RouteConfiguration.FromString(copy[ROUTE]["r"].body)
    assert [(one.name, len(one.routes)) for one in found.virtual_hosts] == [("all", 0), ("other", 1)]


def test_a_tcp_listener_opens_no_port_and_keeps_its_address() -> None:
    message = listener_pb2.Listener(name="l")
    message.address.socket_address.address, message.address.socket_address.port_value = "0.0.0.0", 443
    copy = _copied_listener(message)
    assert copy.HasField("bind_to_port")
    assert copy.bind_to_port.value is False
    assert copy.address == message.address


def test_a_udp_listener_opens_any_free_port_on_loopback() -> None:
    udp = address_pb2.SocketAddress.UDP
    socket = address_pb2.SocketAddress(protocol=udp, address="::", port_value=443, ipv4_compat=True)
    copy = _copied_listener(
        listener_pb2.Listener(name="l", address=address_pb2.Address(socket_address=socket))
    )
    assert not copy.HasField("bind_to_port")
    wanted = address_pb2.SocketAddress(protocol=udp, address="127.0.0.1", port_value=0)
    assert copy.address.socket_address == wanted
    assert copy.address.socket_address.HasField("port_value")


def test_clusters_that_check_health_keep_their_checks_and_have_nobody_to_check() -> None:
    for kind in (cluster_pb2.Cluster.EDS, cluster_pb2.Cluster.STRICT_DNS):
        message = cluster_pb2.Cluster(name="c", type=kind)
        message.health_checks.add()
        message.load_assignment.endpoints.add(priority=1)
        copy = _copied_cluster(message)
        assert copy.health_checks == message.health_checks
        assert copy.type == cluster_pb2.Cluster.STATIC
        assert copy.load_assignment.cluster_name == "c"
        assert not copy.load_assignment.endpoints


def test_clusters_look_no_names_up() -> None:
    message = cluster_pb2.Cluster(name="c", type=cluster_pb2.Cluster.STRICT_DNS)
    one = message.load_assignment.endpoints.add(priority=1).lb_endpoints.add().endpoint
    one.address.socket_address.address, one.address.socket_address.port_value = "db.example.com", 5432
    copy = _copied_cluster(message)
    assert copy.type == cluster_pb2.Cluster.STATIC
    (locality,) = copy.load_assignment.endpoints
    socket = locality.lb_endpoints[0].endpoint.address.socket_address
    assert (locality.priority, socket.address, socket.port_value) == (1, "127.0.0.1", 9)


def test_a_route_that_answers_503_keeps_its_condition_and_nothing_else() -> None:
    route = route_components_pb2.Route(name="users", match=route_components_pb2.RouteMatch(path="/users"))
    route.route.cluster = "users"
    route.typed_per_filter_config["x"].type_url = "y"
    found = route_components_pb2.Route.FromString(closed(route.SerializeToString()))
    assert (found.name, found.match, found.direct_response.status) == ("503/users", route.match, 503)
    assert not found.typed_per_filter_config


def test_replaced_routes_stand_where_the_others_stood_and_the_rest_is_untouched() -> None:
    table = routes("r", {"/a": "a", "/b": "b", "/c": "c"})
    bodies = [body for _, body in sorted(routes_of(table))]
    assert replaced(table, {b"other": None}) is table
    shorter = replaced(table, {bodies[0]: None})
    assert {body for _, body in routes_of(shorter)} == set(bodies[1:])
    other = replaced(table, {bodies[1]: closed(bodies[1])})
    names = [route.name for host in _parsed(other).virtual_hosts for route in host.routes]
    assert names == [
        f"503/{route_name(bodies[1])}" if body == bodies[1] else route_name(body) for body in bodies
    ]


def _parsed(one: Resource) -> route_pb2.RouteConfiguration:
    return route_pb2.RouteConfiguration.FromString(one.body)


def test_a_unix_socket_is_left_to_the_envoy_that_serves() -> None:
    address = address_pb2.Address(pipe=address_pb2.Pipe(path="/run/calls.sock"))
    message = listener_pb2.Listener(name="calls", address=address)
    copied = _copied_listener(message)
    assert (copied.address.socket_address.address, copied.address.socket_address.port_value) == (
        "127.0.0.1",
        0,
    )
    assert not copied.bind_to_port.value
