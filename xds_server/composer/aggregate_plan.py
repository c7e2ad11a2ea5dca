"""The rule of an aggregate, as the control plane sends it, in the form that requests need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from filters.rules import Refused

Template = Mapping[str, Any]
"""A value of the rule: a mapping with one of `value`, `from`, `object` and `list` (translate.compositions)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call. `position` is its place in the file, `after` are the calls whose answers it uses.

    `safe` is true if its method changes nothing. `timeout` is in seconds, `shape` a plan of filters.transform.plans.
    """

    name: str
    position: int
    upstream: str
    method: str
    safe: bool
    after: tuple[str, ...]
    path: Sequence[str | Mapping[str, Any]]
    query: Sequence[tuple[str, Template]]
    headers: Sequence[tuple[str, Template]]
    body: Template | None
    target: Sequence[str]
    shape: Mapping[str, Any] | None
    group: str | None
    optional: bool
    timeout: float | None
    retry: Mapping[str, str]
    """Headers by which Envoy repeats the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatePlan:
    """An aggregate. `order` has the calls so that each comes after those that it uses; `calls` are as in the file.

    `max_answer` is in bytes, `timeout` in seconds.
    """

    calls: tuple[PlannedCall, ...]
    order: tuple[PlannedCall, ...]
    awaited: frozenset[str]
    """The calls whose answers others use."""
    required: frozenset[str]
    """The calls that are not optional."""
    response: Template | None
    errors: bool
    max_answer: int
    timeout: float | None
    reads_body: bool
    overrides: Mapping[str, Mapping[str, Any]]
    writes: bool
    """True if some call is not safe."""


def load(content: bytes) -> AggregatePlan:
    """Return the plan of a rule's content. Raises Refused."""
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise Refused(f"not JSON: {error}") from None
    calls = tuple(_call(one, position, found["retry"]) for position, one in enumerate(found["calls"]))
    return AggregatePlan(
        calls=calls,
        order=_ordered(calls),
        awaited=frozenset(name for one in calls for name in one.after),
        required=frozenset(one.name for one in calls if not one.optional),
        response=found["response"],
        errors=found["errors"],
        max_answer=found["max_answer"],
        timeout=found["timeout"],
        reads_body=_reads_body(found),
        overrides=found["overrides"],
        writes=not all(one.safe for one in calls),
    )


def _call(found: Mapping[str, Any], position: int, retry: Mapping[str, str]) -> PlannedCall:
    shape = found["shape"]
    return PlannedCall(
        **{key: found[key] for key in _COPIED},
        position=position,
        after=tuple(found["after"]),
        query=[(name, one) for name, one in found["query"]],
        headers=[(name, one) for name, one in found["headers"]],
        shape=_with_names(shape["node"]) if shape else None,
        retry=retry if found["safe"] else {},
    )


_COPIED = ("name", "upstream", "method", "safe", "path", "body", "target", "group", "optional", "timeout")


def _with_names(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node of a plan with new names as they are: those of the plan are JSON texts."""
    result = dict(node)
    members: dict[str, Any] = {}
    for name, member in node["members"].items():
        members[name] = dict(member)
        if "rename" in member:
            members[name]["rename"] = json.loads(member["rename"])
        if "node" in member:
            members[name]["node"] = _with_names(member["node"])
    result["members"] = members
    if "elements" in node:
        result["elements"] = _with_names(node["elements"])
    return result


def _ordered(calls: Sequence[PlannedCall]) -> tuple[PlannedCall, ...]:
    found: dict[str, PlannedCall] = {}
    while len(found) < len(calls):
        ready = [one for one in calls if one.name not in found and found.keys() >= set(one.after)]
        if not ready:
            raise Refused("calls wait for each other")
        found.update((one.name, one) for one in ready)
    return tuple(found.values())


def _reads_body(found: Any) -> bool:
    """True if some source is the body of the request."""
    if isinstance(found, dict):
        return (found.get("kind") == "body" and "steps" in found) or any(map(_reads_body, found.values()))
    return isinstance(found, list) and any(map(_reads_body, found))
