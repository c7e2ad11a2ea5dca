"""The delta protocol, each rule a conversation."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from google.protobuf import wrappers_pb2

from tests.support.conversation import Delta, content, snapshot
from xds_server.discovery.events import Acked, Nacked, ProtocolViolation, Subscribed
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, custom


def test_only_what_changed_is_sent_with_a_version_of_its_own() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1", "c": "1"}))
    (first,) = client.ask(CLUSTER)
    assert content(first) == {"a": "1", "b": "1", "c": "1"}
    client.ack(first)
    (second,) = client.publish(snapshot(cluster={"a": "1", "b": "2"}))
    assert content(second) == {"b": "2"}
    assert second.removed == ("c",)


def test_names_count_whatever_the_nonce_is() -> None:
    client = Delta(snapshot(endpoint={"a": "1", "b": "1"}))
    (first,) = client.ask(ENDPOINT, "a")
    client.ack(first)
    (second,) = client.ask(ENDPOINT, "b", nonce="long gone")
    assert content(second) == {"b": "1"}
    client.ask(ENDPOINT, unsubscribe=["a"], nonce="long gone")
    client.ack(second)
    assert client.publish(snapshot(endpoint={"a": "2", "b": "1"})) == []


def test_a_stale_nonce_acknowledges_nothing() -> None:
    client = Delta(snapshot(cluster={"a": "1"}))
    (first,) = client.ask(CLUSTER)
    client.ack(first)
    (second,) = client.publish(snapshot(cluster={"a": "2"}))
    client.ack(first)
    assert client.event == Subscribed(type=CLUSTER, stale=True)
    client.ack(second)
    assert isinstance(client.event, Acked)


def test_a_rejected_resource_is_not_sent_again_until_its_content_changes() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}))
    (response,) = client.ask(CLUSTER)
    assert client.nack(response, "a: bad") == []
    assert isinstance(client.event, Nacked)
    assert client.wait(3600) == []
    (better,) = client.publish(snapshot(cluster={"a": "1", "b": "1", "c": "1"}))
    assert content(better) == {"c": "1"}
    (innocent,) = client.ack(better)
    assert content(innocent) == {"b": "1"}
    client.ack(innocent)
    (repaired,) = client.publish(snapshot(cluster={"a": "2", "b": "1", "c": "1"}))
    assert content(repaired) == {"a": "2"}


def test_a_resource_with_a_taken_port_is_sent_again() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}))
    (response,) = client.ask(CLUSTER)
    assert client.nack(response, "a: cannot bind: Address already in use") == []
    client.stream.again(CLUSTER, ["a"])
    (second,) = client.wait(0)
    assert content(second) == {"a": "1"}


def test_after_a_rejection_without_a_name_each_suspect_goes_alone() -> None:
    """New resources go before them."""
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}))
    (response,) = client.ask(CLUSTER)
    client.nack(response, "something is wrong")
    (new,) = client.publish(snapshot(cluster={"a": "1", "b": "1", "c": "1"}))
    assert content(new) == {"c": "1"}
    (first,) = client.ack(new)
    assert content(first) == {"a": "1"}
    (second,) = client.nack(first, "something is wrong")
    assert isinstance(client.event, Nacked)
    assert client.event.blamed == {"a"}
    assert content(second) == {"b": "1"}
    assert client.ack(second) == []


def test_a_stream_that_insists_finds_the_guilty_one_at_once() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}), limits=StreamLimits(bisect=True))
    (response,) = client.ask(CLUSTER)
    (first,) = client.nack(response, "something is wrong")
    assert content(first) == {"a": "1"}
    (second,) = client.nack(first, "something is wrong")
    assert isinstance(client.event, Nacked)
    assert client.event.blamed == {"a"}
    assert content(second) == {"b": "1"}
    assert client.ack(second) == []


def test_the_first_answer_to_a_wildcard_is_sent_even_when_it_is_empty() -> None:
    client = Delta(snapshot(cluster={}))
    (response,) = client.ask(CLUSTER)
    assert (response.resources, response.removed) == ((), ())
    assert client.ack(response) == []


def test_an_empty_first_request_is_the_old_wildcard_for_listeners_and_clusters_only() -> None:
    client = Delta(snapshot(listener={"l": "1"}, route={"r": "1"}))
    assert client.ask(ROUTE) == []
    assert content(client.ask(LISTENER)[0]) == {"l": "1"}


def test_the_old_wildcard_ends_where_a_name_was_given_first() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}))
    client.ack(*client.ask(CLUSTER, "a"))
    client.ask(CLUSTER, unsubscribe=["a"])
    assert client.ask(CLUSTER) == []
    assert client.publish(snapshot(cluster={"a": "2", "b": "2"})) == []


def test_the_star_may_be_given_later_and_taken_away() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}))
    client.ack(*client.ask(CLUSTER, "a"))
    (everything,) = client.ask(CLUSTER, "*")
    assert content(everything) == {"b": "1"}
    client.ack(everything)
    assert client.ask(CLUSTER, unsubscribe=["*"]) == []
    (named,) = client.publish(snapshot(cluster={"a": "2", "b": "2"}))
    assert content(named) == {"a": "2"}


def test_a_name_unsubscribed_while_the_star_stays_is_answered_with_it() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}))
    client.ack(*client.ask(CLUSTER, "*", "a", "gone"))
    (kept,) = client.ask(CLUSTER, unsubscribe=["a"])
    assert content(kept) == {"a": "1"}
    client.ack(kept)
    (gone,) = client.ask(CLUSTER, unsubscribe=["gone"])
    assert gone.removed == ("gone",)


def test_unsubscribed_then_subscribed_again_is_sent_again() -> None:
    client = Delta(snapshot(endpoint={"a": "1"}))
    client.ack(*client.ask(ENDPOINT, "a"))
    assert client.ask(ENDPOINT, unsubscribe=["a"]) == []
    (again,) = client.ask(ENDPOINT, "a")
    assert content(again) == {"a": "1"}
    client.ack(again)
    (at_once,) = client.ask(ENDPOINT, "a", unsubscribe=["a"])
    assert content(at_once) == {"a": "1"}


def test_initial_versions_skip_what_is_equal_and_remove_what_is_gone() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "2", "d": "1"}))
    assert client.ask(CLUSTER, has={"a": "1", "b": "1", "c": "1"}) == []
    (response,) = client.wait(0.05)
    assert content(response) == {"b": "2", "d": "1"}
    assert response.removed == ("c",)


def test_a_client_that_has_everything_is_sent_no_resource() -> None:
    served = {"a": "1", "b": "1"}
    client = Delta(snapshot(cluster=served, endpoint=served))
    client.ask(CLUSTER, has=served)
    client.ask(ENDPOINT, "a", "b", has=served)
    (wildcard,) = client.wait(0.05)
    assert (wildcard.type, wildcard.resources, wildcard.removed) == (CLUSTER, (), ())


def test_initial_versions_count_in_the_first_request_of_a_type_only() -> None:
    client = Delta(snapshot(cluster={"a": "1"}))
    client.ack(*client.ask(CLUSTER))
    assert client.ask(CLUSTER, has={"a": "9", "x": "1"}) == []


def test_initial_versions_of_names_also_remove_what_is_gone() -> None:
    client = Delta(snapshot(endpoint={"a": "1"}))
    client.ask(ENDPOINT, "a", "b", has={"a": "1", "b": "1"})
    (response,) = client.wait(0.05)
    assert content(response) == {}
    assert response.removed == ("b",)


def test_a_name_that_does_not_exist_is_removed_remembered_and_sent_when_it_comes() -> None:
    client = Delta(snapshot(endpoint={}))
    (absent,) = client.ask(ENDPOINT, "a")
    assert absent.removed == ("a",)
    client.ack(absent)
    (response,) = client.publish(snapshot(endpoint={"a": "1"}))
    assert content(response) == {"a": "1"}


def test_a_name_stands_in_one_list_and_once() -> None:
    client = Delta(snapshot(cluster={"a": "1", "b": "1"}))
    client.ack(*client.ask(CLUSTER, "*", "a"))
    (response,) = client.publish(snapshot(cluster={"b": "2"}))
    assert content(response).keys().isdisjoint(response.removed)
    assert response.removed == ("a",)


def test_nothing_is_answered_before_the_first_snapshot() -> None:
    client = Delta(None)
    assert client.ask(CLUSTER, has={"a": "1"}) == []
    client.publish(snapshot(cluster={"a": "1"}))
    (response,) = client.wait(0.05)
    assert content(response) == {}


def test_newer_state_replaces_what_waits_for_an_acknowledgement() -> None:
    client = Delta(snapshot(cluster={"a": "1"}))
    (first,) = client.ask(CLUSTER)
    client.publish(snapshot(cluster={"a": "2", "b": "1"}))
    client.publish(snapshot(cluster={"a": "1", "c": "1"}))
    (last,) = client.ack(first)
    assert content(last) == {"c": "1"}
    assert last.removed == ()


def test_large_responses_are_split_and_the_parts_follow_the_acknowledgement() -> None:
    client = Delta(snapshot(cluster={}), limits=StreamLimits(response=1))
    client.ack(*client.ask(CLUSTER))
    big = Snapshot.of({CLUSTER: [Resource.from_bytes(name, b"12345678") for name in "abc"]})
    (response,) = client.publish(big)
    sent = [response]
    while answer := client.ack(sent[-1]):
        sent += answer
    assert [list(content(one)) for one in sent] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("name", ["*", "acme"])
def test_a_custom_type_needs_no_registration(name: str) -> None:
    plans = custom("plan", "google.protobuf.StringValue")
    served = Snapshot.of({plans: [Resource.of(wrappers_pb2.StringValue(value="free"), "acme")]})
    client = Delta(served)
    (response,) = client.ask(custom("other name", "google.protobuf.StringValue"), name)
    assert list(content(response)) == ["acme"]
    assert response.type.url == "type.googleapis.com/google.protobuf.StringValue"


def test_a_type_url_is_the_prefix_and_a_message() -> None:
    for url in ("x", "example.com/envoy.config.cluster.v3.Cluster", "type.googleapis.com/"):
        client = Delta(snapshot(cluster={"a": "1"}))
        client.say(DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=["*"]))
        assert isinstance(client.event, ProtocolViolation)


def test_names_that_come_and_go_without_an_answer_are_not_remembered_without_end() -> None:
    client = Delta(snapshot(cluster={"a": "1"}), limits=StreamLimits(names=10))
    client.ask(CLUSTER)
    for number in range(11):
        client.ask(CLUSTER, f"x{number}", nonce="0")
        client.ask(CLUSTER, unsubscribe=[f"x{number}"], nonce="0")
    assert isinstance(client.event, ProtocolViolation)


def test_a_client_may_say_so_much_of_itself_and_no_more() -> None:
    client = Delta(snapshot(cluster={"a": "1"}), limits=StreamLimits(node=100))
    client.ask(CLUSTER, node="x" * 101)
    assert isinstance(client.event, ProtocolViolation)


def test_who_lacks_nothing_is_not_looked_at_again_and_who_waits_is() -> None:
    client = Delta(snapshot(cluster={"a": "1"}, route={"r": "1"}))
    (clusters,) = client.ask(CLUSTER, "*")
    client.ask(ROUTE, "r")
    assert client.stream.busy
    (routes,) = client.ack(clusters)
    client.ack(routes)
    assert not client.stream.busy


def test_many_resources_are_split_and_routes_wait_for_the_last_of_them() -> None:
    many = {f"c{number}": "1" for number in range(1200)}
    client = Delta(snapshot(cluster=many, route={"r": "1"}))
    responses, sizes = client.ask(CLUSTER), []
    client.ask(ROUTE, "r")
    while responses[0].type == CLUSTER:
        (response,) = responses
        sizes.append(len(response.resources))
        responses = client.ack(response)
    assert sizes == [500, 500, 200]
    assert [content(one) for one in responses] == [{"r": "1"}]
