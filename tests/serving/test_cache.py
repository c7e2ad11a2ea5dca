"""The library's way in: set, update, delete, clear, by node group, with versions of one's own or hashes."""

from __future__ import annotations

import pytest
from google.protobuf import wrappers_pb2

from tests.support.conversation import Delta, Sotw, content
from tests.support.resources import cluster, endpoint
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, custom
from xds_server.serving.cache import Cache, VersionReused
from xds_server.serving.store import Store


def current(cache: Cache, group: str = "") -> Snapshot:
    found = cache.store.current(group)
    assert found is not None
    return found


def test_set_replaces_everything_of_one_group() -> None:
    cache = Cache()
    cache.set({CLUSTER: [cluster("a")], ENDPOINT: [endpoint("a")]}, group="blue")
    cache.set({CLUSTER: [cluster("b")]}, group="green")
    cache.set({CLUSTER: [cluster("c")]}, group="blue")
    assert list(current(cache, "blue")[CLUSTER]) == ["c"]
    assert list(current(cache, "blue")[ENDPOINT]) == []
    assert list(current(cache, "green")[CLUSTER]) == ["b"]


def test_update_and_delete_touch_only_what_they_name() -> None:
    cache = Cache()
    cache.set({CLUSTER: [cluster("a"), cluster("b")], ENDPOINT: [endpoint("a")]})
    before = current(cache)
    cache.update(CLUSTER, cluster("a", "2"), cluster("c"))
    cache.delete(CLUSTER, "b", "never there")
    after = current(cache)
    assert list(after[CLUSTER]) == ["a", "c"]
    assert after[CLUSTER]["a"].version != before[CLUSTER]["a"].version
    assert after.version(ENDPOINT) == before.version(ENDPOINT)


def test_messages_are_taken_as_they_are() -> None:
    cache = Cache()
    plans = custom("plan", "google.protobuf.StringValue")
    cache.update(plans, Resource.of(wrappers_pb2.StringValue(value="x"), "free", "7"))
    assert current(cache)[plans]["free"].version == "7"


def test_versions_may_be_given_and_are_what_clients_see() -> None:
    cache = Cache()
    cache.set({CLUSTER: [Resource.from_bytes("a", b"", "a1")]}, versions={CLUSTER: "1"})
    client = Sotw(current(cache))
    (first,) = client.ask(CLUSTER, "a")
    assert first.version == "1"
    client.ack(first)
    cache.update(CLUSTER, Resource.from_bytes("a", b"", "a2"), version="2")
    (second,) = client.publish(current(cache))
    assert (second.version, content(second)) == ("2", {"a": "a2"})


def test_the_given_version_of_another_type_stays() -> None:
    cache = Cache()
    cache.set({CLUSTER: [cluster("a")], ENDPOINT: [endpoint("a")]}, versions={CLUSTER: "1", ENDPOINT: "1"})
    cache.update(CLUSTER, cluster("b"), version="2")
    assert current(cache).version(CLUSTER) == "2"
    assert current(cache).version(ENDPOINT) == "1"


def test_a_version_given_to_other_content_is_an_error() -> None:
    """What was published before stays."""
    cache = Cache()
    cache.set({CLUSTER: [cluster("a")]}, versions={CLUSTER: "1"})
    with pytest.raises(VersionReused, match="the version '1' of the type cluster was given earlier"):
        cache.update(CLUSTER, cluster("b"), version="1")
    with pytest.raises(VersionReused):
        cache.delete(CLUSTER, "a", version="1")
    assert list(current(cache)[CLUSTER]) == ["a"]
    cache.update(CLUSTER, cluster("b"), version="2")
    with pytest.raises(VersionReused):
        cache.update(CLUSTER, cluster("c"), version="1")
    assert list(current(cache)[CLUSTER]) == ["a", "b"]
    cache.delete(CLUSTER, "b", version="1")  # the very content that it had
    assert list(current(cache)[CLUSTER]) == ["a"]


def test_a_given_version_of_a_resource_that_had_other_content_is_an_error() -> None:
    cache = Cache()
    cache.update(CLUSTER, Resource.from_bytes("a", b"one", "7"))
    cache.update(CLUSTER, Resource.from_bytes("a", b"one", "7"))
    with pytest.raises(VersionReused, match="the version '7' of cluster 'a' was given earlier"):
        cache.update(CLUSTER, Resource.from_bytes("a", b"two", "7"))
    assert current(cache)[CLUSTER]["a"].body == b"one"


def test_what_is_published_under_a_version_of_before_reaches_clients_all_the_same() -> None:
    store = Store()
    store.publish(Snapshot.of({CLUSTER: [cluster("a")]}, {CLUSTER: "1"}))
    client = Delta(store.current())
    client.ack(*client.ask(CLUSTER))
    assert store.publish(Snapshot.of({CLUSTER: [cluster("a"), cluster("b")]}, {CLUSTER: "1"}))
    served = store.current()
    assert served is not None
    (response,) = client.publish(served)
    assert list(content(response)) == ["b"]


def test_a_cleared_group_is_sent_nothing_and_then_what_is_set_again() -> None:
    cache = Cache()
    cache.set({CLUSTER: [Resource.from_bytes("a", b"", "1")]})
    client = Delta(current(cache))
    client.ack(*client.ask(CLUSTER))
    cache.clear()
    client.served = cache.store.current()
    assert client.served is None
    assert client.wait(10) == []
    cache.set({CLUSTER: [Resource.from_bytes("b", b"", "1")]})
    (response,) = client.publish(current(cache))
    assert (content(response), response.removed) == ({"b": "1"}, ("a",))


def test_a_wrong_version_and_a_repeated_name_are_errors() -> None:
    """The version is no text, or the name is given twice: then nothing is published."""
    cache = Cache()
    with pytest.raises(TypeError, match="the version 7 of the type cluster is not text"):
        cache.set({CLUSTER: [cluster("a")]}, versions={CLUSTER: 7})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="two resources of the type cluster have the same name"):
        cache.set({CLUSTER: [cluster("a"), cluster("a", "2")]})
    assert cache.store.current() is None
