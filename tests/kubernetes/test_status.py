"""What is written as the status of an object, from what is wanted and what is there."""

from __future__ import annotations

from xds_server.kubernetes.resources import Object
from xds_server.kubernetes.status import holds, merged, shared_list, with_times

OLD, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
US, THEM = "example.com/us", "example.com/them"


def _condition(status: str = "True", time: str | None = None, type_: str = "Accepted") -> Object:
    condition = {"type": type_, "status": status, "reason": type_, "message": "", "observedGeneration": 1}
    return condition if time is None else {**condition, "lastTransitionTime": time}


def _parent(name: str, controller: str | None = None, *conditions: Object, **more: str) -> Object:
    entry: Object = {"parentRef": {"name": name, **more}, "conditions": list(conditions)}
    if controller is not None:
        entry["controllerName"] = controller
        entry["parentRef"] |= {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
    return entry


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    current = {"conditions": [_condition("True", OLD), _condition("False", OLD, "Programmed")]}
    wanted = {"conditions": [_condition(), _condition("True", type_="Programmed"), _condition(type_="New")]}
    times = [one["lastTransitionTime"] for one in with_times(wanted, current, NOW)["conditions"]]
    assert times == [OLD, NOW, NOW]


def test_conditions_of_listeners_are_found_by_the_name_of_the_listener() -> None:
    current = {"listeners": [{"name": "b", "conditions": [_condition("True", OLD)]}]}
    wanted = {"listeners": [{"name": name, "conditions": [_condition()]} for name in "ab"]}
    made = with_times(wanted, current, NOW)["listeners"]
    assert [one["conditions"][0]["lastTransitionTime"] for one in made] == [NOW, OLD]


def test_entries_of_other_controllers_stay_and_all_keep_their_order() -> None:
    current = [
        _parent("ours", US, _condition("True", OLD)),
        _parent("theirs", THEM, {"anything": "else"}),
        _parent("gone", US),
    ]
    wanted = [_parent("new", None, _condition()), _parent("ours", None, _condition())]
    assert merged(wanted, current, "parentRef", US, NOW) == [
        current[0],
        current[1],
        _parent("new", US, _condition("True", NOW)),
    ]


def test_the_same_gateway_by_another_listener_is_another_entry() -> None:
    current = [_parent("shop", US, _condition("True", OLD), sectionName="http")]
    wanted = [_parent("shop", None, _condition(), sectionName="https")]
    (made,) = merged(wanted, current, "parentRef", US, NOW)
    assert made["parentRef"]["sectionName"] == "https"
    assert made["conditions"][0]["lastTransitionTime"] == NOW


def test_no_wanted_entry_removes_ours_only() -> None:
    assert merged([], [_parent("a", US), _parent("a", THEM)], "parentRef", US, NOW) == [_parent("a", THEM)]


def test_the_list_that_others_write_too_is_known() -> None:
    assert shared_list({"parents": []}) == "parents"
    assert shared_list({"ancestors": []}) == "ancestors"
    assert shared_list({"conditions": []}) is None


def test_a_status_holds_what_is_wanted_whatever_else_it_has() -> None:
    current = {
        "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
        "conditions": [_condition("True", OLD, "Theirs"), _condition("True", OLD)],
        "listeners": [{"name": "http", "attachedRoutes": 2, "conditions": []}],
    }
    wanted = {"conditions": [_condition("True", OLD)]}
    assert holds(current, wanted)
    assert not holds(current, wanted, exactly=True)
    assert holds(current, {**current, "conditions": current["conditions"][::-1]}, exactly=True)
    assert not holds(current, {"conditions": [_condition("False", OLD)]})
    assert not holds(current, {"listeners": [{"name": "http", "attachedRoutes": 3}]})
    assert not holds(current, {"listeners": [{"name": "https"}]})
    assert not holds(current, {"addresses": []})
    assert not holds({}, wanted)
