"""What the real Envoy does with a response that has one bad resource, and what we make of it (docs/explanation/rejections.md)."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf import any_pb2

from tests.support.certificates import Authority
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.resources import ADS, cluster, endpoint, listener, routes
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    SECRET,
    ResourceType,
)
from xds_server.serving.events import Acked, Nacked
from xds_server.serving.store import Store

Resources = dict[ResourceType, dict[str, Resource]]


class Fleet:
    """One Envoy with a server of its own; every test leaves the base behind."""

    def __init__(self, xds: XdsThread, envoy: Envoy) -> None:
        self.xds = xds
        self.envoy = envoy
        self.ports = free_port(), free_port()

    def base(self) -> Resources:
        return {
            CLUSTER: {"a": cluster("a"), "b": cluster("b")},
            ENDPOINT: {"a": endpoint("a"), "b": endpoint("b")},
            LISTENER: {
                "l1": _listener("l1", self.ports[0], "r1"),
                "l2": _listener("l2", self.ports[1], "r2"),
            },
            ROUTE: {"r1": routes("r1", {"/": "a"}), "r2": routes("r2", {"/": "b"})},
        }

    def publish(self, resources: Resources) -> None:
        self.xds.publish(Snapshot.of({type_: list(items.values()) for type_, items in resources.items()}))

    def reset(self) -> None:
        self.publish(self.base())
        wait_for(lambda: self.has() == (["a", "b"], ["l1", "l2"], {"r1": "/", "r2": "/"}), "the base")
        self.xds.run(self.xds.events.clear)

    def rejection(self) -> Nacked:
        return wait_for(lambda: self.xds.seen(Nacked), "a rejection")[-1]

    def _dump(self, kind: str, key: str) -> list[dict[str, Any]]:
        for part in self.envoy.config_dump()["configs"]:
            if part["@type"].endswith(f".{kind}"):
                found: list[dict[str, Any]] = part.get(key, [])
                return found
        return []

    def has(self) -> tuple[list[str], list[str], dict[str, str]]:
        """Active clusters, active listeners, and the first prefix of each route configuration."""
        clusters = [
            one["cluster"]["name"] for one in self._dump("ClustersConfigDump", "dynamic_active_clusters")
        ]
        listeners = [
            one for one in self._dump("ListenersConfigDump", "dynamic_listeners") if "active_state" in one
        ]
        found = self._dump("RoutesConfigDump", "dynamic_route_configs")
        prefixes = {
            one["route_config"]["name"]: one["route_config"]["virtual_hosts"][0]["routes"][0]["match"][
                "prefix"
            ]
            for one in found
            if "virtual_hosts" in one["route_config"]
        }
        return sorted(clusters), sorted(one["name"] for one in listeners), prefixes

    def certificates(self) -> dict[str, str]:
        """The certificates in use, in base64 as Envoy shows them, by the secret's name."""
        return {
            one["name"]: one["secret"]["tls_certificate"]["certificate_chain"]["inline_bytes"]
            for one in self._dump("SecretsConfigDump", "dynamic_active_secrets")
        }

    def ports_of(self, name: str) -> list[int]:
        dumped = [
            one["endpoint_config"] for one in self._dump("EndpointsConfigDump", "dynamic_endpoint_configs")
        ]
        return [
            lb["endpoint"]["address"]["socket_address"]["port_value"]
            for one in dumped
            if one["cluster_name"] == name
            for locality in one.get("endpoints", [])
            for lb in locality["lb_endpoints"]
        ]


def _listener(name: str, port: int, route_name: str, *extensions: str) -> Resource:
    message = listener_pb2.Listener.FromString(listener(name, route_name).body)
    network = message.filter_chains[0].filters[0]
    manager = hcm_pb2.HttpConnectionManager()
    network.typed_config.Unpack(manager)
    for extension in extensions:
        discovered = manager.http_filters.add(name=extension).config_discovery
        discovered.config_source.CopyFrom(ADS)
        discovered.type_urls.append("type.googleapis.com/" + fault_pb2.HTTPFault.DESCRIPTOR.full_name)
    manager.http_filters.add(name="router").typed_config.Pack(router_pb2.Router())
    network.typed_config.Pack(manager)
    socket = message.address.socket_address
    socket.address, socket.port_value = "127.0.0.1", port
    return Resource.of(message)


@pytest.fixture(scope="module", params=[True, False], ids=["delta", "sotw"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("envoy")
    with (
        XdsThread(store=Store(quarantine=True)) as xds,
        Envoy(bootstrap(xds.port, delta=request.param), folder) as envoy,
    ):
        yield Fleet(xds, envoy)


@pytest.fixture
def fleet(shared: Fleet) -> Fleet:
    shared.reset()
    return shared


def test_a_cluster_that_cannot_be_built_is_named(
    fleet: Fleet,
) -> None:
    """The other clusters of its response are applied."""
    wanted = fleet.base()
    wanted[CLUSTER]["bad"] = Resource.of(cluster_pb2.Cluster(name="bad", type=cluster_pb2.Cluster.EDS))
    wanted[CLUSTER]["z"], wanted[ENDPOINT]["z"] = cluster("z"), endpoint("z")
    fleet.publish(wanted)
    assert set(fleet.rejection().blamed) == {"bad"}
    wait_for(lambda: fleet.has()[0] == ["a", "b", "z"], "the good cluster")
    assert len(fleet.xds.seen(Nacked)) == 1


def test_clusters_that_are_named_like_words_of_the_message_are_not_to_blame(fleet: Fleet) -> None:
    wanted = fleet.base()
    words = ["cluster", "config", "EDS", "s"]
    wanted[CLUSTER] |= {name: cluster(name) for name in words}
    wanted[ENDPOINT] |= {name: endpoint(name) for name in words}
    wanted[CLUSTER]["error"] = Resource.of(cluster_pb2.Cluster(name="error", type=cluster_pb2.Cluster.EDS))
    fleet.publish(wanted)
    assert set(fleet.rejection().blamed) == {"error"}
    wait_for(lambda: fleet.has()[0] == sorted(["a", "b", *words]), "the good clusters")


def test_extensions_go_to_envoy_one_by_one_so_that_the_bad_one_is_known(fleet: Fleet) -> None:
    wanted = fleet.base()
    wanted[LISTENER]["l1"] = _listener("l1", fleet.ports[0], "r1", "delay-1", "delay-2")
    wanted[EXTENSION_CONFIG] = {name: _fault(name, 503) for name in ("delay-1", "delay-2")}
    fleet.publish(wanted)
    wait_for(lambda: {"delay-1", "delay-2"} <= _accepted(fleet), "the extensions")
    wanted[EXTENSION_CONFIG] = {"delay-1": _fault("delay-1", 7), "delay-2": _fault("delay-2", 504)}
    fleet.publish(wanted)
    rejection = fleet.rejection()
    assert rejection.type == EXTENSION_CONFIG
    assert "delay" not in rejection.message
    assert set(rejection.blamed) == {"delay-1"}
    (held,) = fleet.xds.run(fleet.xds.store.held)
    assert (held.name, held.standing) == ("delay-1", _fault("delay-1", 503).version)


def _accepted(fleet: Fleet) -> set[str]:
    return {name for one in fleet.xds.seen(Acked) if one.type == EXTENSION_CONFIG for name in one.versions}


def _fault(name: str, status: int) -> Resource:
    """Aborts one request of a hundred; a status below 200 breaks a constraint."""
    fault = fault_pb2.HTTPFault()
    fault.abort.http_status = status
    fault.abort.percentage.numerator = 1
    message = extension_pb2.TypedExtensionConfig(name=name)
    message.typed_config.Pack(fault)
    return Resource.of(message)


def test_a_cluster_that_breaks_a_constraint_rejects_its_whole_response(fleet: Fleet) -> None:
    """Envoy does not name it."""
    wanted = fleet.base()
    broken = cluster_pb2.Cluster.FromString(cluster("bad").body)
    broken.connect_timeout.seconds = -1
    wanted[CLUSTER]["bad"] = Resource.of(broken)
    wanted[CLUSTER]["z"], wanted[ENDPOINT]["z"] = cluster("z"), endpoint("z")
    fleet.publish(wanted)
    rejection = fleet.rejection()
    assert {"bad", "z"} <= set(rejection.versions)
    assert not rejection.blamed
    assert fleet.has()[0] == ["a", "b"]


def test_a_listener_that_cannot_be_built_is_named_and_the_others_are_applied(fleet: Fleet) -> None:
    wanted = fleet.base()
    broken = listener_pb2.Listener.FromString(_listener("bad", free_port(), "r1").body)
    packed = any_pb2.Any(type_url=CLUSTER.url)
    broken.filter_chains[0].filters[0].typed_config.CopyFrom(packed)
    wanted[LISTENER]["bad"] = Resource.of(broken)
    wanted[LISTENER]["z"] = _listener("z", free_port(), "r1")
    fleet.publish(wanted)
    assert set(fleet.rejection().blamed) == {"bad"}
    wait_for(lambda: fleet.has()[1] == ["l1", "l2", "z"], "the good listener")


def test_a_listener_at_an_address_that_is_taken_is_named_and_the_others_are_applied(fleet: Fleet) -> None:
    wanted = fleet.base()
    wanted[LISTENER]["same"] = _listener("same", fleet.ports[0], "r1")
    wanted[LISTENER]["z"] = _listener("z", free_port(), "r1")
    fleet.publish(wanted)
    assert set(fleet.rejection().blamed) == {"same"}
    wait_for(lambda: fleet.has()[1] == ["l1", "l2", "z"], "the good listener")


def test_bad_routes_are_found_one_by_one(
    fleet: Fleet,
) -> None:
    """Each bad route is known by name, and Envoy applies the others."""
    wanted = fleet.base()
    broken = route_pb2.RouteConfiguration.FromString(routes("r1", {"/new": "a"}).body)
    broken.virtual_hosts[0].routes[0].match.safe_regex.regex = "("
    wanted[ROUTE] = {"r1": Resource.of(broken), "r2": routes("r2", {"/new": "b"})}
    fleet.publish(wanted)
    rejection = fleet.rejection()
    assert "r1" not in rejection.message
    assert set(rejection.blamed) == {"r1"}
    wait_for(lambda: fleet.has()[2] == {"r1": "/", "r2": "/new"}, "the good routes")
    (held,) = fleet.xds.run(fleet.xds.store.held)
    assert (held.name, held.standing) == ("r1", fleet.base()[ROUTE]["r1"].version)


def test_endpoints_that_break_a_constraint_are_named(
    fleet: Fleet,
) -> None:
    """Envoy keeps their last accepted form."""
    wanted = fleet.base()
    broken = endpoint_pb2.ClusterLoadAssignment.FromString(endpoint("b", 81).body)
    broken.endpoints[0].priority = 129
    wanted[ENDPOINT] = {"a": endpoint("a", 81), "b": Resource.of(broken)}
    fleet.publish(wanted)
    assert set(fleet.rejection().blamed) == {"b"}
    wait_for(lambda: fleet.ports_of("a") == [81], "the good endpoints")
    assert fleet.ports_of("b") == [80]


def _secret(name: str, certificate: bytes, key: bytes) -> Resource:
    message = secret_pb2.Secret(name=name)
    message.tls_certificate.certificate_chain.inline_bytes = certificate
    message.tls_certificate.private_key.inline_bytes = key
    return Resource.of(message)


def _tls_listener(name: str, port: int, secret: str) -> Resource:
    message = listener_pb2.Listener.FromString(_listener(name, port, "r1").body)
    context = tls_pb2.DownstreamTlsContext()
    context.common_tls_context.tls_certificate_sds_secret_configs.add(name=secret, sds_config=ADS)
    message.filter_chains[0].transport_socket.name = "tls"
    message.filter_chains[0].transport_socket.typed_config.Pack(context)
    return Resource.of(message)


def _certificates(ports: Mapping[str, int]) -> dict[str, str]:
    """What TLS connections to these ports are shown."""
    return {name: ssl.get_server_certificate(("127.0.0.1", port), timeout=5) for name, port in ports.items()}


@pytest.mark.parametrize("together", [False, True], ids=["one-by-one", "together"])
def test_a_key_of_another_certificate_leaves_the_old_secret_in_use(fleet: Fleet, together: bool) -> None:
    """The other certificates are rotated."""
    authority = Authority()
    ports = {name: free_port() for name in ("s1", "s2", "s3")}
    old = {name: authority.issue(name) for name in ports}
    new = {name: authority.issue(name) for name in ports}
    before, after = ({name: pair[0].decode() for name, pair in state.items()} for state in (old, new))
    listeners = {name: _tls_listener(name, port, name) for name, port in ports.items()}

    def with_secrets(pairs: Mapping[str, tuple[bytes, bytes]]) -> Resources:
        wanted = fleet.base()
        wanted[LISTENER].update(listeners)
        wanted[SECRET] = {name: _secret(name, *pair) for name, pair in pairs.items()}
        return wanted

    fleet.publish(with_secrets(old))
    wait_for(lambda: _certificates(ports) == before, "the certificates")
    if together:
        for session in fleet.xds.server.services.sessions.values():
            session.stream.watches[SECRET].send_singly = False
    fleet.publish(with_secrets({**new, "s2": (new["s2"][0], old["s2"][1])}))
    rejection = fleet.rejection()
    assert "KEY_VALUES_MISMATCH" in rejection.message
    if together:
        assert set(rejection.versions) == set(ports)
        assert not rejection.blamed
        assert _certificates(ports)["s2"] == before["s2"]
        shown = base64.b64decode(fleet.certificates()["s2"]).decode()
        assert shown == after["s2"]  # the dump has what was rejected: only a handshake tells what is in use
    else:
        assert set(rejection.blamed) == {"s2"}
        wait_for(lambda: _certificates(ports) == {**after, "s2": before["s2"]}, "the good certificates")
        (held,) = fleet.xds.run(fleet.xds.store.held)
        assert (held.name, held.standing) == ("s2", _secret("s2", *old["s2"]).version)
