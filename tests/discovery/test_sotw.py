"""The state-of-the-world protocol, each rule a conversation."""

from __future__ import annotations

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from tests.support.conversation import Sotw, content, snapshot
from xds_server.discovery.events import Acked, Nacked, ProtocolViolation, Subscribed
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE


def test_a_wildcard_client_is_sent_everything_and_acknowledges_it() -> None:
    client = Sotw(snapshot(cluster={"a": "1", "b": "1"}))
    (response,) = client.ask(CLUSTER)
    assert content(response) == {"a": "1", "b": "1"}
    assert client.ack(response) == []
    assert client.event == Acked(
        type=CLUSTER, version=response.version, nonce=response.nonce, versions={"a": "1", "b": "1"}
    )


def test_every_response_has_a_fresh_nonce() -> None:
    client = Sotw(snapshot(cluster={"a": "1"}, listener={"l": "1"}))
    (clusters,) = client.ask(CLUSTER)
    client.ack(clusters)
    (listeners,) = client.ask(LISTENER)
    client.ack(listeners)
    (again,) = client.publish(snapshot(cluster={"a": "2"}, listener={"l": "1"}))
    assert len({clusters.nonce, listeners.nonce, again.nonce}) == 3


def test_the_first_request_is_initial_even_with_an_old_nonce_and_version() -> None:
    client = Sotw(snapshot(endpoint={"a": "1"}))
    (response,) = client.ask(ENDPOINT, "a", nonce="77", version="old")
    assert content(response) == {"a": "1"}
    assert client.event == Subscribed(type=ENDPOINT, added=frozenset({"a"}))


def test_the_node_of_the_first_request_is_kept() -> None:
    client = Sotw(snapshot(cluster={"a": "1"}, listener={"l": "1"}))
    client.ask(CLUSTER, node="envoy-1")
    client.ask(LISTENER)
    assert client.stream.node is not None
    assert client.stream.node.id == "envoy-1"


def test_a_stale_nonce_acknowledges_nothing() -> None:
    client = Sotw(snapshot(endpoint={"a": "1"}))
    (first,) = client.ask(ENDPOINT, "a")
    client.ack(first)
    (second,) = client.publish(snapshot(endpoint={"a": "2"}))
    assert client.ack(first) == []
    assert client.event == Subscribed(type=ENDPOINT, stale=True)
    assert client.publish(snapshot(endpoint={"a": "3"})) == []
    (third,) = client.ack(second)
    assert content(third) == {"a": "3"}


def test_a_name_subscribed_anew_during_a_response_is_sent_again() -> None:
    """The client unsubscribed from it and subscribed to it again while a response was on its way."""
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1"}))
    (first,) = client.ask(ENDPOINT, "a", "b")
    client.ack(first)
    (second,) = client.publish(snapshot(endpoint={"a": "2", "b": "1"}))
    client.ask(ENDPOINT, "a", nonce=first.nonce)
    client.ask(ENDPOINT, "a", "b", nonce=first.nonce)
    (third,) = client.ack(second, ["a", "b"])
    assert content(third) == {"b": "1"}


def test_a_stale_nonce_loses_no_new_name() -> None:
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1"}))
    (first,) = client.ask(ENDPOINT, "a")
    client.ack(first)
    (second,) = client.publish(snapshot(endpoint={"a": "2", "b": "1"}))
    client.ask(ENDPOINT, "a", "b", nonce=first.nonce)
    (third,) = client.ack(second)
    assert content(third) == {"b": "1"}


def test_an_old_nonce_does_not_shrink_the_list() -> None:
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1"}))
    (first,) = client.ask(ENDPOINT, "a", "b")
    client.ack(first)
    (second,) = client.publish(snapshot(endpoint={"a": "2", "b": "1"}))
    client.ack(first, ["a"])
    (third,) = client.publish(snapshot(endpoint={"a": "2", "b": "2"})) or client.ack(second, ["a", "b"])
    assert content(third) == {"b": "2"}


def test_a_rejected_state_is_not_sent_again_until_its_content_changes() -> None:
    served = snapshot(cluster={"a": "1", "b": "1"})
    client = Sotw(served)
    (response,) = client.ask(CLUSTER)
    assert client.nack(response, "cluster 'a' is wrong") == []
    assert isinstance(client.event, Nacked)
    assert client.event.blamed == {"a"}
    assert client.wait(3600) == []
    assert client.publish(snapshot(cluster={"a": "1", "b": "1"})) == []
    (better,) = client.publish(snapshot(cluster={"a": "2", "b": "1"}))
    assert content(better) == {"a": "2", "b": "1"}


def test_what_was_rejected_along_with_the_guilty_is_sent_with_the_next_change() -> None:
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1"}))
    (response,) = client.ask(ENDPOINT, "a", "b")
    client.nack(response, "a: bad")
    (better,) = client.publish(snapshot(endpoint={"a": "2", "b": "1"}))
    assert content(better) == {"a": "2"}
    (innocent,) = client.ack(better)
    assert content(innocent) == {"b": "1"}


def test_only_error_detail_makes_a_nack() -> None:
    client = Sotw(snapshot(endpoint={"a": "1"}))
    (response,) = client.ask(ENDPOINT, "a")
    client.ask(ENDPOINT, "a", nonce=response.nonce, version="")
    assert isinstance(client.event, Acked)


def test_a_reconnecting_pure_wildcard_with_an_equal_version_is_sent_nothing() -> None:
    served = snapshot(cluster={"a": "1"})
    client = Sotw(served)
    assert client.ask(CLUSTER, version=served.version(CLUSTER)) == []
    assert client.wait(1) == []
    (response,) = client.publish(snapshot(cluster={"a": "2"}))
    assert content(response) == {"a": "2"}


def test_a_reconnecting_client_with_names_is_answered_at_an_equal_version() -> None:
    served = snapshot(cluster={"a": "1"}, endpoint={"a": "1"})
    client = Sotw(served)
    assert content(client.ask(ENDPOINT, "a", version=served.version(ENDPOINT))[0]) == {"a": "1"}
    assert content(client.ask(CLUSTER, "a", version=served.version(CLUSTER))[0]) == {"a": "1"}


def test_a_reconnecting_client_with_names_learns_that_they_are_gone() -> None:
    client = Sotw(snapshot(cluster={}))
    (response,) = client.ask(CLUSTER, "a", version="from an earlier stream")
    assert content(response) == {}


def test_an_aggregated_request_without_type_is_refused() -> None:
    client = Sotw(snapshot())
    client.say(DiscoveryRequest())
    assert isinstance(client.event, ProtocolViolation)


def test_a_single_type_stream_assumes_its_type_and_refuses_another() -> None:
    client = Sotw(snapshot(cluster={"a": "1"}), only=CLUSTER)
    (response,) = client.say(DiscoveryRequest())
    assert response.type == CLUSTER
    client.ask(LISTENER)
    assert isinstance(client.event, ProtocolViolation)


def test_one_response_is_outstanding_and_the_newest_state_replaces_what_waits() -> None:
    client = Sotw(snapshot(cluster={"a": "1"}))
    (first,) = client.ask(CLUSTER)
    for version in ("2", "3", "4"):
        assert client.publish(snapshot(cluster={"a": version})) == []
    (last,) = client.ack(first)
    assert content(last) == {"a": "4"}


def test_two_streams_of_one_node_are_independent() -> None:
    served = snapshot(cluster={"a": "1"})
    one, two = Sotw(served), Sotw(served)
    (first,) = one.ask(CLUSTER, node="same")
    one.nack(first)
    (second,) = two.ask(CLUSTER, node="same")
    assert two.ack(second) == []
    assert isinstance(two.event, Acked)


def test_an_empty_list_is_the_old_wildcard_for_listeners_and_clusters_only() -> None:
    client = Sotw(snapshot(cluster={"a": "1"}, listener={"l": "1"}, route={"r": "1"}))
    (clusters,) = client.ask(CLUSTER)
    assert content(clusters) == {"a": "1"}
    client.ack(clusters)
    (listeners,) = client.ask(LISTENER)
    assert content(listeners) == {"l": "1"}
    client.ack(listeners)
    assert client.ask(ROUTE) == []


def test_an_empty_list_means_nothing_once_a_name_was_given() -> None:
    client = Sotw(snapshot(cluster={"a": "1", "b": "1"}))
    (response,) = client.ask(CLUSTER, "a")
    client.ack(response, [])
    assert client.publish(snapshot(cluster={"a": "2", "b": "2"})) == []


def test_the_star_and_names_mix() -> None:
    client = Sotw(snapshot(cluster={"a": "1", "b": "1"}))
    (response,) = client.ask(CLUSTER, "*", "a")
    assert content(response) == {"a": "1", "b": "1"}
    (later,) = client.ack(response, ["*"]) or client.publish(snapshot(cluster={"a": "2", "b": "1"}))
    assert content(later) == {"a": "2", "b": "1"}


def test_a_state_without_the_star_is_only_what_was_named() -> None:
    client = Sotw(snapshot(cluster={"a": "1", "b": "1"}))
    (response,) = client.ask(CLUSTER, "*", "a")
    client.ack(response, ["a"])
    (later,) = client.publish(snapshot(cluster={"a": "2", "b": "2"}))
    assert content(later) == {"a": "2"}


def test_nothing_is_answered_before_the_first_snapshot() -> None:
    client = Sotw(None)
    assert client.ask(CLUSTER) == []
    (response,) = client.publish(snapshot(cluster={"a": "1"}))
    assert content(response) == {"a": "1"}


def test_an_empty_snapshot_is_an_answer_to_a_wildcard() -> None:
    client = Sotw(snapshot())
    (response,) = client.ask(CLUSTER)
    assert content(response) == {}


def test_absence_deletes_clusters_and_listeners() -> None:
    client = Sotw(snapshot(cluster={"a": "1", "b": "1"}))
    client.ack(*client.ask(CLUSTER))
    (response,) = client.publish(snapshot(cluster={"b": "1"}))
    assert content(response) == {"b": "1"}


def test_endpoint_responses_hold_only_what_changed() -> None:
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1"}))
    client.ack(*client.ask(ENDPOINT, "a", "b"))
    (response,) = client.publish(snapshot(endpoint={"a": "1", "b": "2"}))
    assert content(response) == {"b": "2"}


def test_new_names_are_answered_at_an_unchanged_version() -> None:
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1"}))
    (first,) = client.ask(ENDPOINT, "a")
    (second,) = client.ack(first, ["a", "b"])
    assert content(second) == {"b": "1"}
    assert second.version == first.version


def test_a_name_that_was_dropped_and_taken_again_is_sent_again() -> None:
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1"}))
    (first,) = client.ask(ENDPOINT, "a", "b")
    assert client.ack(first, ["a"]) == []
    (again,) = client.ask(ENDPOINT, "a", "b", nonce=first.nonce)
    assert content(again) == {"b": "1"}


def test_a_name_that_does_not_exist_is_met_with_silence_and_remembered() -> None:
    client = Sotw(snapshot(endpoint={"a": "1"}))
    assert client.ask(ENDPOINT, "b") == []
    (response,) = client.publish(snapshot(endpoint={"a": "1", "b": "1"}))
    assert content(response) == {"b": "1"}


def test_a_response_is_not_held_back_because_not_everything_was_named() -> None:
    client = Sotw(snapshot(endpoint={"a": "1", "b": "1", "c": "1"}))
    (response,) = client.ask(ENDPOINT, "a", "missing")
    assert content(response) == {"a": "1"}


def test_a_version_that_is_given_anew_is_sent_without_any_change() -> None:
    def given(version: str) -> Snapshot:
        items = {CLUSTER: snapshot(cluster={"a": "1"})[CLUSTER].values()}
        endpoints = {ENDPOINT: snapshot(endpoint={"a": "1", "b": "1"})[ENDPOINT].values()}
        return Snapshot.of({**items, **endpoints}, {CLUSTER: version, ENDPOINT: version})

    client = Sotw(given("1"))
    (clusters,) = client.ask(CLUSTER)
    client.ack(clusters)
    (endpoints,) = client.ask(ENDPOINT, "a")
    client.ack(endpoints)
    again = client.publish(given("2"))
    assert [(one.type, one.version, content(one)) for one in again] == [
        (CLUSTER, "2", {"a": "1"}),
        (ENDPOINT, "2", {"a": "1"}),
    ]
    for one in again:
        client.ack(one)
    assert client.publish(given("2")) == []


def test_a_large_response_of_a_type_that_has_parts_is_split() -> None:
    served = Snapshot.of({ENDPOINT: [Resource.from_bytes(name, bytes(600)) for name in "abc"]})
    client = Sotw(served, limits=StreamLimits(response=1000))
    names: list[str] = []
    responses = client.ask(ENDPOINT, "a", "b", "c")
    while responses:
        (response,) = responses
        names += content(response)
        assert response.version == served.version(ENDPOINT)
        responses = client.ack(response)
    assert names == ["a", "b", "c"]


def test_what_a_client_that_comes_back_has_is_known_by_its_version() -> None:
    old, new = snapshot(cluster={"a": "1", "b": "1"}), snapshot(cluster={"a": "2"})
    client = Sotw(old)
    client.publish(new)
    client.ask(CLUSTER, version=old.version(CLUSTER))
    (response,) = client.wait(0.05)
    assert client.stream.watches[CLUSTER].pending is not None
    assert content(response) == {"a": "2"}
    assert client.ack(response) == []
