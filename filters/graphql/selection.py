"""`select` of a call: which part of the JSON answer is the value of the field, and what its members are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from filters.language import Mistake
from filters.transform import paths

Pick = Callable[[Any], Any]


def whole(value: Any) -> Any:
    """The answer as it is."""
    return value


def path(written: str) -> Pick:
    """What takes the value at a path. A path goes through arrays, as in `transform`. Raises Mistake."""
    steps = tuple(paths.name_of(one) for one in paths.steps(written) if one != paths.ELEMENTS)
    if len(steps) == 1:
        name = steps[0]
        return lambda value: value.get(name) if isinstance(value, dict) else _taken(value, steps, 0)
    return lambda value: _taken(value, steps, 0)


def _taken(value: Any, steps: tuple[str, ...], at: int) -> Any:
    while at < len(steps):
        if isinstance(value, list):
            return [_taken(one, steps, at) for one in value]
        value = value.get(steps[at]) if isinstance(value, dict) else None
        at += 1
    return value


def select(written: Any) -> Pick:
    """What `select` makes of an answer: a path, or ``{from: PATH, fields: {NAME: PATH or select}}``. Raises Mistake."""
    if isinstance(written, str):
        return path(written)
    if not isinstance(written, Mapping) or not written or not set(written) <= {"from", "fields"}:
        raise Mistake(
            "not a selection",
            'write "data.users", or {from: "data.users", fields: {name: "full_name"}}',
            value=written,
        )
    start = path(_text(written["from"])) if "from" in written else whole
    fields = written.get("fields")
    if fields is None:
        return start
    if not isinstance(fields, Mapping) or not fields:
        raise Mistake("'fields' says where each field comes from", 'write {name: "full_name"}', value=fields)
    picks = {name: select(one) for name, one in fields.items()}
    return lambda value: _renamed(start(value), picks)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Mistake("'from' is a path", 'write from: "data.users"', value=value)


def _renamed(value: Any, picks: Mapping[str, Pick]) -> Any:
    """An object with the fields that are written, beside those that it has; a list of them for a list."""
    if isinstance(value, list):
        return [_renamed(one, picks) for one in value]
    if not isinstance(value, dict):
        return value
    return value | {name: pick(value) for name, pick in picks.items()}
