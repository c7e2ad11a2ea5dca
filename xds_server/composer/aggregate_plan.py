"""The rule of an aggregate, as the control plane sends it, in the form that requests need."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
    request_headers: tuple[str, ...]
    """The headers of the request that some source is, in lower case."""
    for_one_client: bool
    """True if some source is the address of the client, or the id of the request is in the response."""
    overrides: Mapping[str, Mapping[str, Any]]
    writes: bool
    """True if some call is not safe."""


def load(content: bytes) -> AggregatePlan:
    """Return the plan of a rule's content. Raises Refused."""
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise Refused(f"not JSON: {error}") from None
    sources = (*_sources(found["calls"]), *_sources(found["response"]))
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
        reads_body=any(one["kind"] == "body" for one in sources),
        request_headers=tuple(sorted({one["name"] for one in sources if one["kind"] == "header"})),
        for_one_client=any(one["kind"] == "ip" for one in sources)
        or any(one["kind"] == "request_id" for one in _sources(found["response"])),
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


def _sources(found: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the sources in the calls or the response of a rule. What else is there has no kind."""
    if isinstance(found, dict):
        if isinstance(found.get("kind"), str):
            yield found
        else:
            for key, one in found.items():
                if key not in ("value", "default"):
                    yield from _sources(one)
    elif isinstance(found, list):
        for one in found:
            yield from _sources(one)
