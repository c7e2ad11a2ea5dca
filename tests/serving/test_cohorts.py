"""Two cohorts of a group: the chosen clients are served the candidate, and what one cohort rejects leaves the other alone."""

from __future__ import annotations

from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER
from xds_server.serving.events import Acked, Event, Nacked, Quarantined
from xds_server.serving.store import Store


def snapshot(**versions: str) -> Snapshot:
    return Snapshot.of(
        {
            CLUSTER: [
                Resource.from_bytes(name, version.encode(), version) for name, version in versions.items()
            ]
        }
    )


def versions(served: Snapshot | None) -> dict[str, str]:
    assert served is not None
    return {name: one.version for name, one in served[CLUSTER].items()}


class Fleet:
    """A store, and its events."""

    def __init__(self, **stable: str) -> None:
        self.events: list[Event] = []
        self.store = Store(self.events.append, quarantine=True)
        for node in ("a", "b"):
            self.store.join("", Node(id=node))
        self.store.publish(snapshot(**stable))

    def offer(self, **candidate: str) -> None:
        self.store.offer(snapshot(**candidate), chosen="a".__eq__)

    def accept(self, node: str) -> None:
        served = versions(self.store.current("", "", node))
        self.store.record(
            Acked(
                stream=1,
                node=Node(id=node),
                group="",
                type=CLUSTER,
                version="",
                versions=served,
                removed=(),
                latency=0,
                convergence=0,
            )
        )

    def reject(self, node: str, **blamed: str) -> None:
        self.store.record(
            Nacked(
                stream=1,
                node=Node(id=node),
                group="",
                type=CLUSTER,
                version="",
                versions=blamed,
                blamed=blamed,
                message="no",
            )
        )

    def served(self, node: str) -> dict[str, str]:
        return versions(self.store.current("", "", node))


def test_chosen_clients_are_served_the_candidate_and_others_the_stable_snapshot() -> None:
    fleet = Fleet(x="1", y="1")
    fleet.offer(x="2", y="1")
    assert (fleet.served("a")["x"], fleet.served("b")["x"]) == ("2", "1")
    assert versions(fleet.store.current()) == {"x": "1", "y": "1"}
    assert fleet.store.only_of_candidate(CLUSTER, "x", "2")
    assert not fleet.store.only_of_candidate(CLUSTER, "y", "1")
    fleet.store.choose(lambda _node: True)
    assert fleet.served("b")["x"] == "2"
    fleet.store.promote()
    assert versions(fleet.store.current()) == {"x": "2", "y": "1"}
    assert fleet.store.candidate() is None
    assert [versions(one)["x"] for one in fleet.store.before()] == ["1", "1"]


def test_a_candidate_that_is_taken_back_leaves_nothing_behind() -> None:
    fleet = Fleet(x="1")
    fleet.offer(x="2", z="1")
    fleet.accept("a")
    fleet.store.take_back()
    assert fleet.served("a") == fleet.served("b") == {"x": "1"}
    assert versions(next(iter(fleet.store.before())))["x"] == "2"
    fleet.offer(x="3")
    assert (fleet.served("a"), fleet.served("b")) == ({"x": "3"}, {"x": "1"})


def test_a_rejected_candidate_is_quarantined_for_its_cohort_alone() -> None:
    fleet = Fleet(x="1")
    fleet.accept("a")
    fleet.offer(x="2")
    fleet.reject("a", x="2")
    assert fleet.served("a") == fleet.served("b") == {"x": "1"}
    (held,) = fleet.store.held_of_candidate()
    assert (held.name, held.version, held.standing) == ("x", "2", "1")
    assert [one.held.name for one in fleet.events if isinstance(one, Quarantined)] == ["x"]
    fleet.store.take_back()
    assert fleet.store.held() == ()


def test_what_the_chosen_accepted_is_the_fallback_after_promotion() -> None:
    fleet = Fleet(x="1")
    fleet.offer(x="2")
    fleet.accept("a")
    fleet.store.promote()
    fleet.store.publish(snapshot(x="3"))
    fleet.reject("b", x="3")
    assert fleet.served("a") == fleet.served("b") == {"x": "2"}


def test_a_newer_candidate_replaces_an_earlier_one() -> None:
    fleet = Fleet(x="1")
    fleet.offer(x="2")
    fleet.offer(x="3")
    assert (fleet.served("a"), fleet.served("b")) == ({"x": "3"}, {"x": "1"})
    assert [versions(one)["x"] for one in fleet.store.before("", "", "a")] == ["2", "1"]
    assert versions(fleet.store.accepted("", candidate=True)) == {"x": "3"}


def test_a_client_of_a_new_release_that_connects_in_the_middle_is_served_its_cohort() -> None:
    store = Store(quarantine=True, release_of=lambda _group, node: node.id)
    store.publish(snapshot(x="1"))
    store.offer(snapshot(x="2"), chosen="a".__eq__)
    for node, version in (("a", "2"), ("b", "1")):
        assert versions(store.current("", store.join("", Node(id=node)), node)) == {"x": version}
