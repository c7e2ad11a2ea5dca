"""The response of an aggregate, from the answers of its calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Raw

from xds_server.composer.aggregate_plan import PlannedCall
from xds_server.composer.json_values import MISSING, Json, first, members_of, shaped

ERRORS = "_errors"
"""The member with the calls whose answers are missing."""


def part(call: PlannedCall, answer: Json) -> Any:
    """Return the part of an answer that is used, with its new names; MISSING if there is none."""
    value = answer.find(call.target) if call.target else answer.raw
    if value is MISSING or call.shape is None:
        return value
    if isinstance(value, list):
        shapes = (shaped(one, call.shape) for one in value)
        return [one for one in shapes if one is not MISSING]
    return shaped(value, call.shape)


def merged(parts: Iterable[tuple[PlannedCall, Any]]) -> dict[str, Any]:
    """Return one object of the parts, in their order: the members of each, where later ones win.

    A part with a group is a member of that name; several parts of one group are merged there in the same way. A part that
    is no object is a member with the name of its call. null is nothing.
    """
    result: dict[str, Any] = {}
    groups: set[str] = set()
    for call, value in parts:
        if value is MISSING or _is_null(value):
            continue
        members = _members(value)
        if call.group is not None:
            before = result.get(call.group) if call.group in groups else None
            if members is not None and isinstance(before, dict):
                result[call.group] = {**before, **members}
            else:
                result[call.group] = value if members is None else dict(members)
            groups.add(call.group)
        elif members is None:
            result[call.name] = value
        else:
            result.update(members)
            groups.difference_update(members)
    return result


def _members(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, dict):
        return value
    return members_of(value) if isinstance(value, Raw) else None


def _is_null(value: Any) -> bool:
    return isinstance(value, Raw) and first(value) == b"n"
