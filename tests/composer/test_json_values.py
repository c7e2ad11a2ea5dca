"""JSON that is taken apart only as far as needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.transform import paths
from filters.transform.plans import Change, plan
from xds_server.composer.aggregate_plan import _with_names
from xds_server.composer.json_values import MISSING, Json, NotJson, encode, filled, shaped, text

NAMES = st.sampled_from(["a", "b", "c", "id", "ü"])
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<p>",
        b"{",
        b'{"a":1,}',
        b"[1] x",
        b'"\xff"',
        b'{"a":"\xff"}',
        b"NaN",
        b"[" * 200_000 + b"]" * 200_000,
    ],
    ids=repr,
)
def test_what_is_no_json_is_told(body: bytes) -> None:
    with pytest.raises(NotJson):
        Json(body)


def test_bytes_that_nobody_names_stay() -> None:
    answer = Json(b' {"price": 1.10, "id": 12345678901234567890123, "in": {"x": 1e400}}')
    found = {name: answer.find([name]) for name in ("price", "id", "in")}
    assert encode(found) == b'{"price":1.10,"id":12345678901234567890123,"in":{"x": 1e400}}'


@given(VALUES, st.lists(NAMES | st.none(), max_size=3))
def test_a_path_finds_what_a_reference_finds(value: Any, steps: list[str | None]) -> None:
    found = Json(json.dumps(value).encode()).find(steps)
    expected = _reference(value, steps)
    assert found is MISSING if expected is MISSING else json.loads(encode(found)) == expected


def _reference(value: Any, steps: list[str | None]) -> Any:
    if not steps:
        return value
    if isinstance(value, list):
        rest = steps[1:] if steps[0] is None else steps
        return [found for one in value if (found := _reference(one, rest)) is not MISSING]
    if not isinstance(value, dict) or steps[0] not in value:
        return MISSING
    return _reference(value[steps[0]], steps[1:])


@given(VALUES, st.lists(st.lists(NAMES, min_size=1, max_size=2), min_size=1, max_size=3))
def test_only_keeps_what_a_reference_keeps(value: Any, kept: list[list[str]]) -> None:
    changes = [Change(paths.steps(".".join(path)), "keep") for path in kept]
    found = shaped(Json(json.dumps(value).encode()).raw, plan(changes)["node"])
    expected = _only(value, kept)
    assert found is MISSING if expected is MISSING else json.loads(encode(found)) == expected


def _only(value: Any, kept: list[list[str]]) -> Any:
    if isinstance(value, list):
        return [found for one in value if (found := _only(one, kept)) is not MISSING]
    if not isinstance(value, dict):
        return MISSING
    result = {}
    for name, inner in value.items():
        here = [path[1:] for path in kept if path[0] == name]
        if [] in here:
            result[name] = inner
        elif here and (found := _only(inner, here)) is not MISSING:
            result[name] = found
    return result


def test_a_new_name_takes_the_place_of_a_field_that_has_it() -> None:
    node = _with_names(plan([Change(("a",), "rename", 'b"c'), Change(("x", "a"), "rename", "y")])["node"])
    found = shaped(Json(b'{"b\\"c": 1, "a": 2, "x": [{"a": 3}, 4], "z": 5}').raw, node)
    assert json.loads(encode(found)) == {'b"c': 2, "x": [{"y": 3}, 4], "z": 5}


@pytest.mark.parametrize(
    ("json_text", "expected"),
    [
        (b'"a b"', "a b"),
        (b"1.10", "1.10"),
        (b" 12345678901234567890123", "12345678901234567890123"),
        (b"true", "true"),
        (b"null", None),
        (b"{}", None),
        (b'[1,"x"]', "1,x"),
        (b"[1,null]", None),
        (b"[]", None),
    ],
)
def test_a_value_as_text(json_text: bytes, expected: str | None) -> None:
    assert text(Json(json_text).raw) == expected


def test_a_template_leaves_out_what_has_no_value() -> None:
    template = {
        "object": [
            ["a", {"from": "known"}],
            ["b", {"from": "unknown"}],
            ["c", {"from": "unknown", "default": None}],
            ["d", {"list": [{"from": "unknown"}, {"value": {"from": "x"}}]}],
        ]
    }
    found = filled(template, lambda source: 1 if source == "known" else MISSING)  # type: ignore[comparison-overlap]
    assert found == {"a": 1, "c": None, "d": [{"from": "x"}]}
