"""Versions: hashes of the content, unless somebody gives others."""

from __future__ import annotations

from tests.support.conversation import snapshot
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, LISTENER

A, B = Resource.from_bytes("a", b"1"), Resource.from_bytes("b", b"2")


def test_a_version_that_is_the_hash_anyway_is_nobodys() -> None:
    hashed = Snapshot.of({CLUSTER: [A]})
    again = Snapshot.of({CLUSTER: [A]}, hashed.versions)
    assert again.versions == hashed.versions
    assert again.explicit == frozenset()
    assert again.version_of(CLUSTER, {"a": A, "b": B}) != again.version(CLUSTER)


def test_what_replaces_a_type_takes_its_given_version_away_and_no_others() -> None:
    given = Snapshot.of({CLUSTER: [A], LISTENER: [A]}, {CLUSTER: "7", LISTENER: "8"})
    replaced = given.replacing({CLUSTER: {"b": B}})
    assert replaced.version(CLUSTER) == Snapshot.of({CLUSTER: [B]}).version(CLUSTER)
    assert replaced.version(LISTENER) == "8"
    assert replaced.explicit == {LISTENER}


def test_the_same_content_has_the_same_version_however_it_came_about() -> None:
    made = snapshot(cluster={"a": "1", "b": "1"})
    replaced = snapshot(cluster={"a": "2"}).replacing({CLUSTER: made[CLUSTER]})
    assert replaced.versions == made.versions
