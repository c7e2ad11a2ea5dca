"""How answers become one response."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.composer.plans import planned
from xds_server.composer.aggregate_response import merged, part
from xds_server.composer.json_values import MISSING, Json, encode

NAMES = st.sampled_from(["a", "b", "c", "d"])
ANSWERS = (
    st.none() | st.integers() | st.lists(st.integers(), max_size=2) | st.dictionaries(NAMES, st.integers())
)


def response(calls: dict[str, dict[str, Any]], answers: dict[str, Any]) -> Any:
    plan = planned({"calls": calls})
    parts = [
        (one, part(one, Json(json.dumps(answers[one.name]).encode())))
        for one in plan.calls
        if one.name in answers
    ]
    return json.loads(encode(merged(parts)))


@given(st.lists(st.tuples(ANSWERS, st.none() | NAMES), min_size=1, max_size=5))
def test_answers_are_merged_as_a_reference_merges_them(calls: list[tuple[Any, str | None]]) -> None:
    written = {f"c{at}": {"group": group} if group else {} for at, (_, group) in enumerate(calls)}
    found = response(written, {f"c{at}": answer for at, (answer, _) in enumerate(calls)})
    expected: dict[str, Any] = {}
    made: dict[str, Any] = {}  # groups that no later answer has replaced
    for at, (answer, group) in enumerate(calls):
        if answer is None:
            continue
        if group is not None:
            both = isinstance(answer, dict) and isinstance(made.get(group), dict)
            made[group] = {**made[group], **answer} if both else answer
            expected[group] = made[group]
        else:
            members = answer if isinstance(answer, dict) else {f"c{at}": answer}
            expected.update(members)
            made = {name: value for name, value in made.items() if name not in members}
    assert found == expected


@given(st.permutations(["a", "b", "c"]))
def test_the_order_of_the_file_and_not_of_the_answers_counts(order: list[str]) -> None:
    calls: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
    answers = {name: {"x": name} for name in order}
    assert response(calls, answers) == {"x": "c"}


def test_target_only_and_rename() -> None:
    calls = {
        "user": {"target": "data.user", "only": ["id", "name"], "rename": {"name": "full_name"}},
        "orders": {"target": "data.items", "only": ["id"], "group": "orders"},
        "none": {"target": "data.nothing", "group": "none"},
    }
    answers = {
        "user": {"data": {"user": {"id": 1, "name": "Ada", "secret": 2}}},
        "orders": {"data": {"items": [{"id": 1, "secret": 2}, {"id": 3}]}},
        "none": {"data": {}},
    }
    expected = {"id": 1, "full_name": "Ada", "orders": [{"id": 1}, {"id": 3}]}
    assert response(calls, answers) == expected


def test_an_answer_that_is_no_object_has_the_name_of_its_call() -> None:
    assert response({"a": {}, "b": {}, "c": {}}, {"a": [1], "b": "x", "c": None}) == {"a": [1], "b": "x"}


def test_a_part_that_is_not_there_is_missing() -> None:
    (call,) = planned({"calls": {"a": {"target": "x.y"}}}).calls
    assert part(call, Json(b'{"x": 1}')) is MISSING
