"""Make before break: what goes first, what waits for whom, what is sent again, and for how long anything waits."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstreams_pb2

from tests.support.conversation import Delta, Sotw, content
from tests.support.resources import ADS, cluster, endpoint, gateway, listener
from xds_server.discovery.events import Response
from xds_server.discovery.references import references
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import (
    BREAKS_FROM,
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    SECRET,
    TYPES,
    ResourceType,
)

OLD = gateway(["old"], {"/": "old"})
NEW = gateway(["new"], {"/": "new"})
BOTH = pytest.mark.parametrize("kind", [Sotw, Delta])


def settled(kind: type[Sotw | Delta], served: Snapshot) -> Sotw | Delta:
    """A client as Envoy is one, with everything acknowledged."""
    client = kind(served)
    for type_, names in (
        (CLUSTER, []),
        (ENDPOINT, list(served[ENDPOINT])),
        (LISTENER, []),
        (ROUTE, ["http"]),
    ):
        acknowledge(client, client.ask(type_, *names))
    return client


def acknowledge(client: Sotw | Delta, responses: list[Response]) -> list[Response]:
    """Accept everything that comes until nothing comes; returns it in order."""
    seen = list(responses)
    for response in seen:
        seen += client.ack(response)
    return seen


def kinds(responses: list[Response]) -> list[ResourceType]:
    return [one.type for one in responses]


def ask_endpoints(client: Sotw | Delta, *names: str) -> list[Response]:
    if isinstance(client, Sotw):
        return client.ask(ENDPOINT, *names, nonce=client.stream.watches[ENDPOINT].nonce)
    return client.ask(ENDPOINT, *names)


def test_the_table_is_in_the_order_of_make_before_break() -> None:
    assert list(TYPES) == sorted(TYPES, key=lambda type_: type_.order)
    assert all(one.order < BREAKS_FROM for one in (CLUSTER, ENDPOINT, SECRET, EXTENSION_CONFIG))
    assert all(one.order >= BREAKS_FROM for one in (LISTENER, ROUTE))


@BOTH
def test_new_routes_wait_for_the_acknowledgement_of_their_clusters_and_endpoints(
    kind: type[Sotw | Delta],
) -> None:
    client = settled(kind, OLD)
    (clusters,) = client.publish(NEW)
    assert clusters.type == CLUSTER
    assert "new" in content(clusters)
    assert client.ack(clusters) == []
    (endpoints,) = ask_endpoints(client, "old", "new")
    assert endpoints.type == ENDPOINT
    (moved,) = client.ack(endpoints)
    assert moved.type == ROUTE


@BOTH
def test_the_old_cluster_goes_only_after_the_new_routes_are_acknowledged(
    kind: type[Sotw | Delta],
) -> None:
    client = settled(kind, OLD)
    (clusters,) = client.publish(NEW)
    if kind is Sotw:
        assert content(clusters).keys() == {"old", "new"}
    assert clusters.removed == ()
    client.ack(clusters)
    (endpoints,) = ask_endpoints(client, "old", "new")
    (moved,) = client.ack(endpoints)
    assert client.wait(0.5) == []
    assert client.ack(moved) == []
    gone = client.wait(1.0)[0]
    assert gone.type == CLUSTER
    if kind is Sotw:
        assert content(gone).keys() == {"new"}
        assert gone.version == NEW.version(CLUSTER)
    else:
        assert gone.removed == ("old",)


@BOTH
def test_a_state_that_still_holds_old_clusters_has_a_version_of_its_own(
    kind: type[Sotw | Delta],
) -> None:
    client = settled(kind, OLD)
    (clusters,) = client.publish(NEW)
    assert (clusters.version == NEW.version(CLUSTER)) is (kind is Delta)


@BOTH
def test_routes_wait_no_longer_than_the_patience_and_it_is_reported(kind: type[Sotw | Delta]) -> None:
    client = settled(kind, OLD)
    client.publish(NEW)
    assert client.wait(4.9) == []
    assert client.stream.deadline == 5.0
    assert kinds(client.wait(0.1)) == [ROUTE]
    (overdue,) = client.stream.overdue
    assert overdue.waited == 5.0
    assert set(overdue.unacknowledged) == {"cluster", "endpoint new"}


@BOTH
def test_a_rejected_cluster_does_not_hold_back_the_routes(kind: type[Sotw | Delta]) -> None:
    client = settled(kind, OLD)
    (clusters,) = client.publish(NEW)
    assert kinds(client.nack(clusters, "cluster new is wrong")) == [ROUTE]
    assert client.stream.overdue == []


@BOTH
def test_a_client_without_clusters_is_sent_routes_at_once(kind: type[Sotw | Delta]) -> None:
    client = kind(OLD)
    acknowledge(client, client.ask(ROUTE, "http"))
    assert kinds(client.publish(NEW)) == [ROUTE]


@BOTH
def test_a_client_without_routes_loses_clusters_at_once(kind: type[Sotw | Delta]) -> None:
    client = kind(OLD)
    acknowledge(client, client.ask(CLUSTER))
    (response,) = client.publish(NEW)
    assert content(response).keys() == {"new"}


@BOTH
def test_endpoints_are_sent_again_after_their_cluster_at_an_equal_version(
    kind: type[Sotw | Delta],
) -> None:
    client = settled(kind, gateway(["a", "b"], {"/": "a"}))
    changed = Snapshot.of({**_of(client.served), CLUSTER: [cluster("a", "2"), cluster("b")]})
    clusters, endpoints = client.publish(changed)
    assert kinds([clusters, endpoints]) == [CLUSTER, ENDPOINT]
    assert content(endpoints).keys() == {"a"}


@BOTH
def test_routes_are_sent_again_after_their_listener_at_an_equal_version(
    kind: type[Sotw | Delta],
) -> None:
    client = settled(kind, OLD)
    changed = Snapshot.of({**_of(client.served), LISTENER: [listener("http", "http", "2")]})
    assert kinds(client.publish(changed)) == [LISTENER, ROUTE]


@BOTH
def test_secrets_are_sent_again_after_their_cluster_at_an_equal_version(
    kind: type[Sotw | Delta],
) -> None:
    def served(version: str) -> Snapshot:
        secret = Resource.from_bytes("tls", b"", "1")
        return Snapshot.of(
            {CLUSTER: [cluster("a", version, "tls")], ENDPOINT: [endpoint("a")], SECRET: [secret]}
        )

    client = kind(served("1"))
    for type_, names in ((CLUSTER, []), (ENDPOINT, ["a"]), (SECRET, ["tls"])):
        acknowledge(client, client.ask(type_, *names))
    assert kinds(client.publish(served("2"))) == [CLUSTER, ENDPOINT, SECRET]


@BOTH
def test_a_change_of_endpoints_touches_nothing_else(kind: type[Sotw | Delta]) -> None:
    client = settled(kind, gateway(["a", "b"], {"/": "a"}))
    changed = Snapshot.of({**_of(client.served), ENDPOINT: [endpoint("a"), endpoint("b", 81)]})
    (response,) = client.publish(changed)
    assert (response.type, list(content(response))) == (ENDPOINT, ["b"])


def test_extensions_are_not_removed_while_a_listener_refers_to_them() -> None:
    def served(*extensions: str, listeners: str) -> Snapshot:
        made = [Resource.from_bytes(name, b"", "1") for name in extensions]
        return Snapshot.of({EXTENSION_CONFIG: made, LISTENER: [listener("http", "http", listeners)]})

    client = Delta(served("lua", listeners="1"))
    acknowledge(client, client.ask(LISTENER))
    acknowledge(client, client.ask(EXTENSION_CONFIG, "lua"))
    (listeners,) = client.publish(served(listeners="2"))
    assert listeners.type == LISTENER
    client.ack(listeners)
    (gone,) = client.wait(1.0)
    assert (gone.type, gone.removed) == (EXTENSION_CONFIG, ("lua",))


def test_a_cluster_that_comes_back_before_it_was_removed_is_never_removed() -> None:
    client = settled(Delta, gateway(["a", "b"], {"/": "a"}))
    assert client.publish(gateway(["a"], {"/": "a"})) == []
    assert client.publish(gateway(["a", "b"], {"/": "a"})) == []
    assert client.wait(100) == []


def test_references_are_read_from_clusters_and_listeners() -> None:
    assert references(CLUSTER, cluster("a", secret="tls")) == {(ENDPOINT, "a"), (SECRET, "tls")}
    assert references(LISTENER, listener("l", "r")) == {(ROUTE, "r")}
    assert references(CLUSTER, Resource.from_bytes("broken", b"\xff\xff")) == frozenset()


@pytest.mark.parametrize("secret", ["", "tls"])
def test_options_of_a_cluster_hide_none_of_its_references(secret: str) -> None:
    message = cluster_pb2.Cluster.FromString(cluster("a", secret=secret).body)
    options = upstreams_pb2.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.SetInParent()
    message.typed_extension_protocol_options[options.DESCRIPTOR.full_name].Pack(options)
    wanted = {(ENDPOINT, "a"), (SECRET, "tls")} if secret else {(ENDPOINT, "a")}
    assert references(CLUSTER, Resource.of(message)) == wanted
    discovered = options.http_filters.add(name="fault").config_discovery
    discovered.config_source.CopyFrom(ADS)
    discovered.type_urls.append("type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault")
    message.typed_extension_protocol_options[options.DESCRIPTOR.full_name].Pack(options)
    assert references(CLUSTER, Resource.of(message)) == wanted | {(EXTENSION_CONFIG, "fault")}


def _of(snapshot: Snapshot | None) -> dict[ResourceType, list[Resource]]:
    assert snapshot is not None
    return {type_: list(snapshot[type_].values()) for type_ in snapshot}


def test_a_client_that_comes_back_keeps_old_clusters_until_it_has_the_new_routes() -> None:
    client = Delta(NEW)
    state = {type_: {name: one.version for name, one in OLD[type_].items()} for type_ in OLD}
    client.ask(CLUSTER, has=state[CLUSTER])
    client.ask(ENDPOINT, "old", has=state[ENDPOINT])
    client.ask(LISTENER, has=state[LISTENER])
    client.ask(ROUTE, "http", has=state[ROUTE])
    clusters, *_ = client.wait(0.05)
    assert (clusters.type, content(clusters).keys(), clusters.removed) == (CLUSTER, {"new"}, ())


def test_a_client_that_comes_back_with_a_state_of_the_world_keeps_old_clusters_too() -> None:
    client = Sotw(OLD)
    client.publish(NEW)
    client.ask(CLUSTER, version=OLD.version(CLUSTER))
    client.ask(LISTENER, version=OLD.version(LISTENER))
    client.ask(ENDPOINT, "old", version=OLD.version(ENDPOINT))
    client.ask(ROUTE, "http", version=OLD.version(ROUTE))
    clusters, *_ = client.wait(0.05)
    assert (clusters.type, content(clusters).keys()) == (CLUSTER, {"old", "new"})
    client.ack(clusters)
    sent = client.ask(ENDPOINT, "old", "new", nonce=client.stream.watches[ENDPOINT].nonce)
    while sent and sent[-1].type != ROUTE:
        sent = [one for response in sent for one in client.ack(response)]
    (moved,) = sent
    client.ack(moved)
    gone, *_ = client.wait(1.0)
    assert (gone.type, content(gone).keys()) == (CLUSTER, {"new"})


def test_endpoints_of_a_changed_cluster_are_sent_again() -> None:
    """The cluster changed while the client was away."""
    served = gateway(["a"], {"/": "a"}, version="2")
    client = Delta(served)
    client.ask(CLUSTER, has={"a": "of before"})
    (clusters,) = client.wait(0.05)
    (endpoints,) = client.ask(ENDPOINT, "a", has={"a": served[ENDPOINT]["a"].version})
    assert content(clusters).keys() == content(endpoints).keys() == {"a"}
