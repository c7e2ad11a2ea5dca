"""json.lua in LuaJIT, as Envoy runs it, beside Python's json and a model that changes parsed values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa import luajit21

from filters.lua_literals import lua, script
from filters.transform.paths import ELEMENTS, steps
from filters.transform.plans import Change, plan

RESULT = """
return function(body, plan, values)
  local result, wrong = transformed(body, plan, values)
  if result ~= nil then
    return result, nil
  end
  return nil, wrong.at .. " " .. wrong.what
end
"""


class Script:
    """The script. Texts are bytes on both sides."""

    def __init__(self) -> None:
        self._lua = luajit21.LuaRuntime(encoding=None)
        self._transformed = self._lua.execute((script({}, "transform/json.lua") + RESULT).encode())

    def plan(self, changes: Sequence[Change], **more: Any) -> Any:
        return self._lua.eval(lua(plan(changes, **more)).encode())

    def __call__(
        self, body: bytes, changes: Sequence[Change] = (), values: dict[int, bytes] | None = None, **more: Any
    ) -> bytes:
        """The changed body. Raises ValueError."""
        result, wrong = self._transformed(
            body, self.plan(changes, **more), self._lua.table_from(values or {})
        )
        if result is None:
            raise ValueError(wrong.decode())
        assert isinstance(result, bytes)
        return result


@pytest.fixture(scope="module")
def transformed() -> Script:
    return Script()


def removed(path: str) -> Change:
    return Change(steps(path), "remove")


def kept(path: str) -> Change:
    return Change(steps(path), "keep")


def renamed(path: str, name: str) -> Change:
    return Change(steps(path), "rename", name)


def put(path: str, value: str) -> Change:
    return Change(steps(path), "set", {"text": value})


CASES: list[tuple[str, list[Change], str]] = [
    ('{"a":1.10, "b":2}', [removed("a")], '{"b":2}'),
    ('{"a":1, "b":2}', [removed("b")], '{"a":1}'),
    ('{ "a" : 1 , "b" : 2 , "c" : 3 }', [removed("b")], '{ "a" : 1 , "c" : 3 }'),
    ('{ "a" : 1 }', [removed("a")], "{  }"),
    ('{"a":1,"b":2}', [removed("a"), removed("b"), put("c", "3")], '{"c":3}'),
    ('{"a":{"b":1,"c":2}}', [removed("a.b")], '{"a":{"c":2}}'),
    ('{"a":[{"b":1},{"b":2,"c":3},4,[{"b":5}]]}', [removed("a.b")], '{"a":[{},{"c":3},4,[{}]]}'),
    ('{"a":{"b":1}}', [removed("a[].b")], '{"a":{"b":1}}'),
    ('[{"a":1}]', [removed("[].a")], "[{}]"),
    ('{"a":1}', [removed("[].a")], '{"a":1}'),
    ('{"\\u0061":1}', [renamed("a", "b")], '{"b":1}'),
    ('{"\\ud83d\\ude00":1,"x":2}', [removed("😀")], '{"x":2}'),
    ('{"a":{"b":1}}', [renamed("a", "c"), renamed("a.b", "d")], '{"c":{"d":1}}'),
    ('{"a":1,"b":2}', [renamed("a", "b"), renamed("b", "a")], '{"b":1,"a":2}'),
    ('{"a":1,"b":2}', [renamed("a", "b"), removed("b")], '{"b":1}'),
    ("{}", [put("a.b.c", "1")], '{"a":{"b":{"c":1}}}'),
    ("{ }", [put("a", "1"), put("b", "2")], '{"a":1,"b":2 }'),
    ('{"a": 1}', [put("a", "2"), put("b", "3"), put("c", "4")], '{"a": 2, "b": 3, "c": 4}'),
    ('{\n  "a": 1\n}', [put("b", "2")], '{\n  "a": 1,\n  "b": 2\n}'),
    ('{"a":1}', [put("a.b", "2")], '{"a":{"b":2}}'),
    ('{"a":[{},{"b":1},2]}', [put("a.b", "3")], '{"a":[{"b":3},{"b":3},2]}'),
    ("{}", [put("a[].b", "3")], "{}"),
    ('{"a":1,"b":{"c":2,"d":3},"e":[{"c":4}]}', [kept("b.c"), kept("e")], '{"b":{"c":2},"e":[{"c":4}]}'),
    ('{"a":1,"b":[{"c":2,"d":3},5,null]}', [kept("b.c")], '{"b":[{"c":2},null,null]}'),
    ('{"a":1,"b":2}', [kept("a"), put("n.x", "1")], '{"a":1,"n":{"x":1}}'),
    ('{"a":1,"n":{"y":2}}', [kept("a"), put("n.x", "1")], '{"a":1,"n":{"x":1}}'),
    ('{"a":1,"b":2}', [kept("a"), renamed("b", "c")], '{"a":1,"c":2}'),
    ('"text"', [kept("a")], "null"),
    ('{"a":{"b":1,"c":2},"d":3}', [kept("a"), removed("a.b")], '{"a":{"c":2}}'),
]


@pytest.mark.parametrize(("body", "changes", "result"), CASES)
def test_only_what_is_named_changes(
    transformed: Script, body: str, changes: list[Change], result: str
) -> None:
    assert transformed(body.encode(), changes).decode() == result


def test_values_of_other_fields(transformed: Script) -> None:
    changes = [
        Change(steps("a.b"), "capture", 1),
        removed("a"),
        Change(steps("c"), "set", {"captured": 1}),
        Change(steps("d"), "set", {"captured": 2, "default": "0"}),
        Change(steps("e"), "set", {"captured": 3}),
    ]
    assert transformed(b'{"a":{"b": 1.50}}', changes) == b'{"c":1.50,"d":0}'


def test_a_value_from_outside_that_is_missing_removes_the_field(transformed: Script) -> None:
    changes = [Change(steps(name), "set", {"source": number}) for name, number in (("a", 1), ("b", 2))]
    assert transformed(b'{"a":"forged","c":1}', changes, {2: b'"x"'}) == b'{"c":1,"b":"x"}'


def test_bodies_in_envelopes(transformed: Script) -> None:
    body = b' {"meta": 1, "data": {"a": [1.0]} } '
    assert transformed(body, [], unwrap=steps("data")) == b'{"a": [1.0]}'
    assert transformed(body, [], unwrap=steps("data.a")) == b"[1.0]"
    assert transformed(body, [], unwrap=steps("data.none")) == body
    assert transformed(body, [], unwrap=steps("data"), wrap=steps("x.y")) == b'{"x":{"y":{"a": [1.0]}}}'
    with pytest.raises(ValueError, match="more than one value"):
        transformed(b'{"data":1} 2', [], unwrap=steps("data"))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("", "0 the text ends before a value"),
        ('{"a":1,}', "7 a name in quotes is missing"),
        ('{"a":{"b":1,"b":2}}', "12 the name occurs twice in an object"),
        ("[" * 257, "256 more than 256 levels"),
        ('{"a":' * 257, "1280 more than 256 levels"),
        ('{"old":1,"new":2}', "0 the object has a member of the new name too"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(transformed: Script, body: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        transformed(body.encode(), [renamed("old", "new")])


# What the script accepts --------------------------------------------------------------------------------------


def _without_constants(name: str) -> Any:
    raise ValueError(name)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def parsed(body: bytes) -> Any:
    """The value of a JSON text in which numbers keep their digits. Raises ValueError."""
    return json.loads(
        body.decode("utf-8"),
        parse_float=lambda digits: Decimal(digits).as_tuple(),
        parse_int=lambda digits: f"int {digits}",
        parse_constant=_without_constants,
        object_pairs_hook=_distinct,
    )


PIECES = st.sampled_from(
    [
        *("{", "}", "[", "]", ",", ":", " ", "\n", '"a"', '"b"', '"\\u0061"', '"\\', '"', "\\", "u00e9", "é"),
        *(
            "0",
            "1",
            "-",
            "+",
            ".",
            "e",
            "E5",
            "true",
            "false",
            "null",
            "nul",
            "NaN",
            "\x00",
            "\x1f",
            "\\n",
            "/",
        ),
        *('{"a":1}', '{"a":', "[1,2]", '"x":', "\\ud83d", "\\ude00", "\ufeff"),
    ]
)
RAW = st.sampled_from(
    [b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98\x80"]
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=12).map(lambda parts: "".join(parts).encode()),
    st.lists(st.one_of(RAW, st.just(b'"')), max_size=5).map(b"".join),
    st.binary(max_size=8),
)


@given(TEXTS)
def test_the_script_accepts_what_python_accepts(body: bytes) -> None:
    try:
        parsed(body)
        valid = True
    except (ValueError, RecursionError):
        valid = False
    try:
        assert SCRIPT(body) == body
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == valid


# What the script makes of it ----------------------------------------------------------------------------------

SCRIPT = Script()
NAMES = st.sampled_from(["a", "b", "c", "d"])
NUMBERS = st.sampled_from(["1", "-0", "1.10", "12345678901234567890", "1e400", "0.1"])
SPACE = st.sampled_from(["", "", " ", "\n  "])


@st.composite
def written(draw: Callable[[Any], Any], depth: int = 0) -> str:
    """A JSON text with any white space."""
    kind = draw(st.integers(0, 3 if depth < 3 else 1))
    space = draw(SPACE)
    if kind == 0:
        return space + str(draw(NUMBERS)) + space
    if kind == 1:
        return space + draw(st.sampled_from(['"x"', "true", "null", '"\\u0041"'])) + space
    if kind == 2:
        items = [draw(written(depth + 1)) for _ in range(draw(st.integers(0, 3)))]
        return f"{space}[{','.join(items) or space}]{space}"
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    members = [f'{space}"{name}"{space}:{draw(written(depth + 1))}' for name in names]
    return f"{space}{{{','.join(members) or space}}}{space}"


PATHS = st.lists(st.tuples(NAMES, st.booleans()), min_size=1, max_size=3).map(
    lambda parts: tuple(step for name, array in parts for step in ((ELEMENTS,) if array else ()) + (name,))
)
"""Paths in which [] may stand before each name."""


def _each(value: Any, path: tuple[str, ...], change: Callable[[dict[str, Any], str], None]) -> None:
    """Apply `change` to each object that has the last name of the path, as the docs describe it."""
    if path[0] == ELEMENTS:
        if isinstance(value, list):
            for one in value:
                _each(one, path[1:], change)
        return
    if isinstance(value, list):
        for one in value:
            _each(one, path, change)
    elif isinstance(value, dict):
        if len(path) == 1:
            change(value, path[0])
        elif path[0] in value:
            _each(value[path[0]], path[1:], change)


@given(written(), st.lists(PATHS, max_size=3, unique=True))
def test_fields_are_removed_as_from_a_parsed_value(text: str, paths: list[tuple[str, ...]]) -> None:
    expected = parsed(text.encode())
    for path in sorted(paths, key=len, reverse=True):
        _each(expected, path, lambda found, name: found.pop(name, None))
    result = SCRIPT(text.encode(), [Change(path, "remove") for path in paths])
    assert parsed(result) == expected


@given(written(), PATHS)
def test_a_field_is_set_as_in_a_parsed_value(text: str, path: tuple[str, ...]) -> None:
    expected = parsed(text.encode())
    _set(expected, path)
    result = SCRIPT(text.encode(), [Change(path, "set", {"text": '"new"'})])
    assert parsed(result) == expected


def _set(value: Any, path: tuple[str, ...]) -> None:
    if path[0] == ELEMENTS:
        if isinstance(value, list):
            for one in value:
                _set(one, path[1:])
    elif isinstance(value, list):
        for one in value:
            _set(one, path)
    elif isinstance(value, dict):
        inner = value.get(path[0])
        if len(path) == 1:
            value[path[0]] = "new"
        elif isinstance(inner, list | dict):
            _set(inner, path[1:])
        elif ELEMENTS not in path:
            value[path[0]] = _new(path[1:])


def _new(path: tuple[str, ...]) -> Any:
    return {path[0]: _new(path[1:])} if path else "new"


@given(written(), st.lists(PATHS, min_size=1, max_size=3, unique=True))
def test_fields_are_kept_as_in_a_parsed_value(text: str, paths: list[tuple[str, ...]]) -> None:
    result = SCRIPT(text.encode(), [Change(path, "keep") for path in paths])
    assert parsed(result) == _kept(parsed(text.encode()), paths)


def _kept(value: Any, paths: Sequence[tuple[str, ...]]) -> Any:
    if any(not path for path in paths):
        return value
    if isinstance(value, list):
        inner = [path[1:] if path[0] == ELEMENTS else path for path in paths]
        return [_kept(one, inner) for one in value]
    if not isinstance(value, dict):
        return None
    found = {}
    for name, one in value.items():
        inside = [path[1:] for path in paths if path[0] == name]
        if inside:
            found[name] = _kept(one, inside)
    return found


@given(written())
def test_a_text_without_changes_stays(text: str) -> None:
    assert SCRIPT(text.encode(), [removed("none.such")]) == text.encode()
