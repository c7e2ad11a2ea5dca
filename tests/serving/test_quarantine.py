"""What one client rejects stands at its last accepted form for the group, or is left out; the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.support.answers import acked, nacked
from tests.support.conversation import snapshot
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, ResourceType
from xds_server.serving.events import Acked, Event, Nacked, Quarantined
from xds_server.serving.store import Adapted, Store


class Group:
    """A store with quarantine, and clients that accept and reject."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.store = Store(
            self.events.append,
            quarantine=True,
            place=lambda group: lambda type_, name: f"{group or 'gateway'}.yaml: {type_.name} {name}",
        )

    def publish(self, **types: dict[str, str]) -> None:
        self.store.publish(snapshot(**types))

    def accept(self, **versions: str) -> None:
        self.store.record(acked(CLUSTER, versions))

    def reject(self, **versions: str) -> None:
        self.store.record(nacked(CLUSTER, versions))

    @property
    def served(self) -> dict[str, str]:
        current = self.store.current()
        assert isinstance(current, Snapshot)
        return {name: one.version for name, one in current[CLUSTER].items()}


def test_a_rejected_resource_stands_at_its_last_accepted_form() -> None:
    group = Group()
    group.publish(cluster={"a": "1", "b": "1"})
    group.accept(a="1", b="1")
    group.publish(cluster={"a": "2", "b": "2"})
    group.reject(a="2")
    assert group.served == {"a": "1", "b": "2"}
    (held,) = group.store.held()
    assert (held.name, held.version, held.standing, held.message) == ("a", "2", "1", "no")


def test_a_resource_that_was_never_accepted_is_left_out() -> None:
    group = Group()
    group.publish(cluster={"a": "1", "b": "1"})
    group.reject(a="1")
    assert group.served == {"b": "1"}
    assert group.store.held()[0].standing is None


def test_the_place_that_it_came_from_is_told() -> None:
    group = Group()
    group.publish(cluster={"a": "1"})
    group.reject(a="1")
    (event,) = [event for event in group.events if isinstance(event, Quarantined)]
    assert event.held.place == "gateway.yaml: cluster a"


def test_what_is_accepted_after_the_next_publication_still_counts() -> None:
    group = Group()
    group.publish(cluster={"a": "1"})
    group.publish(cluster={"a": "2"})
    group.accept(a="1")
    group.reject(a="2")
    assert group.served == {"a": "1"}


def test_what_a_slow_client_accepts_after_many_publications_still_counts() -> None:
    group = Group()
    for version in range(1, 11):
        group.publish(cluster={"a": str(version)})
    group.accept(a="1")
    group.reject(a="10")
    assert group.served == {"a": "1"}


def test_what_a_slow_client_accepts_does_not_replace_what_another_accepted_since() -> None:
    group = Group()
    for version in ("1", "2", "3"):
        group.publish(cluster={"a": version})
    group.accept(a="2")
    group.accept(a="1")
    group.reject(a="3")
    assert group.served == {"a": "2"}


def test_changed_content_is_served_again() -> None:
    group = Group()
    group.publish(cluster={"a": "1"})
    group.reject(a="1")
    group.publish(cluster={"a": "2"})
    assert group.served == {"a": "2"}
    assert group.store.held() == ()


def test_other_changes_go_on_while_one_resource_is_held() -> None:
    group = Group()
    group.publish(cluster={"a": "1", "b": "1"}, endpoint={"e": "1"})
    group.accept(a="1", b="1")
    group.publish(cluster={"a": "bad", "b": "1"}, endpoint={"e": "1"})
    group.reject(a="bad")
    group.publish(cluster={"a": "bad", "b": "2"}, endpoint={"e": "2"})
    assert group.served == {"a": "1", "b": "2"}
    current = group.store.current()
    assert current is not None
    assert current[ENDPOINT]["e"].version == "2"


def test_what_another_client_accepted_is_not_held_back_for_all() -> None:
    group = Group()
    group.publish(cluster={"a": "1"})
    group.accept(a="1")
    group.reject(a="1")
    assert group.served == {"a": "1"}


def test_a_removed_resource_is_held_no_longer() -> None:
    group = Group()
    group.publish(cluster={"a": "1", "b": "1"})
    group.reject(a="1")
    group.publish(cluster={"b": "1"})
    assert group.store.held() == ()


def test_a_port_that_is_taken_on_one_machine_concerns_nobody_else() -> None:
    group = Group()
    group.publish(cluster={"a": "1"})
    group.store.record(
        replace(_nacked("", a="1"), message="a: cannot bind '0.0.0.0:80': Address already in use")
    )
    assert group.served == {"a": "1"}
    assert group.store.held() == ()


def test_other_groups_are_not_concerned() -> None:
    group = Group()
    group.store.publish(snapshot(cluster={"a": "1"}), "other")
    group.publish(cluster={"a": "1"})
    group.reject(a="1")
    other = group.store.current("other")
    assert other is not None
    assert list(other[CLUSTER]) == ["a"]


def _nacked(group: str, **versions: str) -> Nacked:
    return nacked(CLUSTER, versions, group, Node(id="prover"))


def test_what_a_proving_group_rejected_is_never_served_to_the_others() -> None:
    group = Group()
    group.publish(cluster={"a": "1", "b": "1"})
    group.accept(a="1", b="1")
    new = snapshot(cluster={"a": "2", "b": "2"})
    group.store.publish(new, "proving")
    group.store.record(_nacked("proving", a="2"))
    assert group.served == {"a": "1", "b": "1"}
    group.store.publish(new, proved_by="proving")
    assert group.served == {"a": "1", "b": "2"}
    (held,) = group.store.held()
    assert (held.name, held.standing, held.node) == ("a", "1", "prover")
    assert [one.group for one in group.events if isinstance(one, Quarantined)] == ["proving", ""]


def test_what_others_have_accepted_stays_whatever_a_proving_group_says() -> None:
    group = Group()
    group.publish(cluster={"a": "1"})
    group.accept(a="1")
    group.store.publish(snapshot(cluster={"a": "1"}), "proving")
    group.store.record(_nacked("proving", a="1"))
    group.store.publish(snapshot(cluster={"a": "1", "b": "1"}), proved_by="proving")
    assert group.served == {"a": "1", "b": "1"}
    assert group.store.held() == ()


def test_what_was_proved_and_sent_is_fallen_back_on_before_anybody_acknowledged_it() -> None:
    group = Group()
    for version in ("1", "2", "3"):
        state = snapshot(cluster={"a": version})
        group.store.publish(state, "proving")
        answer = _nacked if version == "3" else _accepted
        group.store.record(answer("proving", a=version))
        group.store.publish(state, proved_by="proving")
        if version == "1":
            group.accept(a="1")
    assert group.served == {"a": "2"}


def test_what_the_proving_group_accepted_is_held_back_for_nobody() -> None:
    group = Group()
    for version in ("1", "2"):
        state = snapshot(cluster={"a": version})
        group.store.publish(state, "proving")
        group.store.record(_accepted("proving", a=version))
        group.store.publish(state, proved_by="proving")
        group.reject(a=version)
        assert group.served == {"a": version}
        assert group.store.held() == ()
    state = snapshot(cluster={"a": "3"})
    group.store.publish(state, "proving")
    group.store.record(_nacked("proving", a="3"))
    group.store.publish(state, proved_by="proving")
    assert group.served == {"a": "2"}


def test_what_the_proving_group_says_after_the_publication_counts_too() -> None:
    group = Group()
    group.publish(cluster={"a": "1", "b": "1"})
    group.accept(a="1", b="1")
    state = snapshot(cluster={"a": "2", "b": "2"})
    group.store.publish(state, "proving")
    group.store.publish(state, proved_by="proving")
    group.reject(b="2")
    assert group.served == {"a": "2", "b": "1"}
    group.store.record(_accepted("proving", b="2"))
    group.store.record(_nacked("proving", a="2"))
    assert group.served == {"a": "1", "b": "2"}


def test_a_later_acknowledgement_lifts_a_quarantine() -> None:
    group = Group()
    group.publish(cluster={"a": "1"})
    group.accept(a="1")
    group.publish(cluster={"a": "2"})
    group.reject(a="2")
    assert group.served == {"a": "1"}
    group.accept(a="2")
    assert group.served == {"a": "2"}
    assert group.store.held() == ()
    group.reject(a="2")
    assert group.served == {"a": "2"}


OLD, NEW = Node(id="old", agent="envoy", version="1.37.5"), Node(id="new", agent="envoy", version="1.40.0")


class Mixed:
    """A store whose clients are told apart by their release."""

    def __init__(
        self, adapt: Callable[[Snapshot, str], Adapted] = lambda snapshot, _: (snapshot, ())
    ) -> None:
        self.store = Store(quarantine=True, release_of=lambda _, node: node.release, adapt=adapt)

    def connect(self, node: Node) -> None:
        assert self.store.join("", node) == node.release

    def accept(self, node: Node, **versions: str) -> None:
        self.store.record(replace(acked(CLUSTER, versions, node=node), release=node.release))

    def reject(self, node: Node, **versions: str) -> None:
        self.store.record(replace(nacked(CLUSTER, versions, node=node), release=node.release))

    def served(self, node: Node) -> dict[str, str]:
        current = self.store.current("", node.release)
        assert current is not None
        return {name: one.version for name, one in current[CLUSTER].items()}


def test_a_rejection_counts_for_clients_of_the_same_release() -> None:
    """It does not count for clients of another release that come later."""
    mixed = Mixed()
    mixed.connect(OLD)
    mixed.store.publish(snapshot(cluster={"a": "1", "b": "1"}))
    mixed.reject(OLD, a="1")
    mixed.connect(NEW)
    mixed.connect(Node(id="watch"))
    assert mixed.served(OLD) == {"b": "1"}
    assert mixed.served(NEW) == {"a": "1", "b": "1"}
    (held,) = mixed.store.held()
    assert (held.name, held.release) == ("a", "envoy 1.37")


def test_what_a_client_without_a_program_rejects_is_held_back_from_no_envoy() -> None:
    mixed = Mixed()
    mixed.connect(NEW)
    mixed.connect(Node(id="watch"))
    mixed.store.publish(snapshot(cluster={"a": "1"}))
    mixed.reject(Node(id="watch"), a="1")
    assert mixed.served(NEW) == {"a": "1"}


def test_what_one_release_accepts_is_held_back_from_no_other() -> None:
    mixed = Mixed()
    for node in (OLD, NEW):
        mixed.connect(node)
    mixed.store.publish(snapshot(cluster={"a": "1"}))
    mixed.reject(OLD, a="1")
    assert mixed.served(OLD) == {}
    mixed.accept(NEW, a="1")
    assert mixed.served(OLD) == {"a": "1"}
    mixed.reject(OLD, a="1")
    assert mixed.served(OLD) == {"a": "1"}


def test_a_release_is_served_what_it_can_take_and_judges_that_alone() -> None:
    def adapt(wanted: Snapshot, release: str) -> Adapted:
        if release != OLD.release:
            return wanted, ()
        return snapshot(cluster={name: f"{one.version}-old" for name, one in wanted[CLUSTER].items()}), ()

    mixed = Mixed(adapt)
    mixed.store.publish(snapshot(cluster={"a": "1"}))
    for node in (OLD, NEW):
        mixed.connect(node)
    mixed.accept(OLD, a="1-old")
    mixed.accept(NEW, a="1")
    mixed.store.publish(snapshot(cluster={"a": "2"}))
    assert (mixed.served(OLD), mixed.served(NEW)) == ({"a": "2-old"}, {"a": "2"})
    mixed.reject(OLD, a="2-old")
    assert (mixed.served(OLD), mixed.served(NEW)) == ({"a": "1-old"}, {"a": "2"})


def test_what_a_release_rejected_is_not_among_what_is_kept_for_a_restart() -> None:
    mixed = Mixed()
    mixed.connect(NEW)
    mixed.store.publish(snapshot(cluster={"a": "1", "b": "1"}))
    mixed.accept(NEW, a="1", b="1")
    mixed.store.publish(snapshot(cluster={"a": "2", "b": "2", "c": "2"}))
    mixed.reject(NEW, a="2", c="2")
    kept = mixed.store.accepted()
    assert kept is not None
    assert {name: one.version for name, one in kept[CLUSTER].items()} == {"a": "1", "b": "2"}


def test_releases_that_clients_make_up_are_not_told_apart_without_end() -> None:
    store = Store(release_of=lambda _, node: node.release)
    store.publish(snapshot(cluster={"a": "1"}))
    found = {store.join("", Node(agent="envoy", version=f"1.{number}")) for number in range(1000)}
    assert len(found) < 100
    assert "" in found


def _accepted(group: str, **versions: str) -> Acked:
    return acked(CLUSTER, versions, group, Node(id="prover"))


def test_what_was_served_before_a_restart_is_good_to_fall_back_on() -> None:
    group = Group()
    group.store.restore(snapshot(cluster={"a": "1", "b": "1"}))
    group.publish(cluster={"a": "2", "b": "2"})
    group.reject(a="2")
    assert group.served == {"a": "1", "b": "2"}
    group.publish(cluster={"a": "3", "b": "2"})
    group.accept(a="3")
    group.publish(cluster={"a": "4", "b": "2"})
    group.reject(a="4")
    assert group.served == {"a": "3", "b": "2"}


def test_what_was_served_before_a_restart_is_held_back_when_a_client_rejects_it() -> None:
    group = Group()
    group.store.restore(snapshot(cluster={"a": "1", "b": "1"}))
    group.reject(a="1")
    assert group.served == {"b": "1"}


def test_what_was_served_before_a_restart_stays_whatever_a_proving_group_says() -> None:
    group = Group()
    old = snapshot(cluster={"a": "1"})
    group.store.restore(old)
    group.store.publish(old, "proving")
    group.store.record(_nacked("proving", a="1"))
    group.store.publish(snapshot(cluster={"a": "1", "b": "1"}), proved_by="proving")
    assert group.served == {"a": "1", "b": "1"}


def test_where_no_form_is_known_a_stand_in_is_served_until_one_is_accepted() -> None:
    def stand_in(type_: ResourceType, rejected: Resource) -> Resource | None:
        return Resource.from_bytes(rejected.name, b"closed", "closed") if rejected.name == "a" else None

    store = Store(quarantine=True, stand_in=stand_in)

    def served() -> dict[str, str]:
        current = store.current()
        assert current is not None
        return {name: one.version for name, one in current[CLUSTER].items()}

    store.publish(snapshot(cluster={"a": "1", "b": "1"}))
    store.record(nacked(CLUSTER, {"a": "1", "b": "1"}))
    assert served() == {"a": "closed"}
    assert {held.name: (held.closed, held.standing) for held in store.held()} == {
        "a": (True, None),
        "b": (False, None),
    }
    store.record(nacked(CLUSTER, {"a": "closed"}))
    assert served() == {}
    store.publish(snapshot(cluster={"a": "2"}))
    store.record(acked(CLUSTER, {"a": "2"}))
    store.publish(snapshot(cluster={"a": "3"}))
    store.record(nacked(CLUSTER, {"a": "3"}))
    assert served() == {"a": "2"}
