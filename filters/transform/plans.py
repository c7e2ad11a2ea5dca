"""Plans: what json.lua does to one body. They are built from the changes that a user writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from filters.transform.paths import ELEMENTS, Steps, name_of

Plan = dict[str, Any]
"""A plan as json.lua reads it, made of mappings, lists, texts and flags."""
Value = Mapping[str, Any]
"""A value to set as json.lua reads it: `text`, `source` or `captured`, and perhaps `default`."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to the fields at a path. `detail` is the new name, the value, or the number of the capture."""

    steps: Steps
    what: Literal["keep", "remove", "rename", "set", "capture"]
    detail: Any = None

    def inner(self) -> Change:
        """The same change, seen from the next step."""
        return Change(self.steps[1:], self.what, self.detail)


def plan(changes: Sequence[Change], unwrap: Steps = (), wrap: Steps = ()) -> Plan:
    """The plan of a body. It is empty if nothing changes."""
    result: Plan = {}
    if changes:
        result["node"] = _node(changes, only=any(one.what == "keep" for one in changes))
    if unwrap:
        result["unwrap"] = [name_of(step) for step in unwrap]
    if wrap:
        result["wrap"] = [quoted(name_of(step)) for step in wrap]
    return result


def quoted(text: str) -> str:
    """A text as JSON."""
    return json.dumps(text, ensure_ascii=False)


def _node(changes: Sequence[Change], *, only: bool) -> Plan:
    """The node of all changes whose paths lead here. `only` is true if everything that is not kept goes."""
    own = [one for one in changes if one.steps and one.steps[0] != ELEMENTS]
    of_elements = [one.inner() for one in changes if one.steps and one.steps[0] == ELEMENTS]
    members: dict[str, Plan] = {}
    sets: list[str] = []
    for step in dict.fromkeys(one.steps[0] for one in own):
        name = name_of(step)
        member = _member(name, [one.inner() for one in own if one.steps[0] == step], only=only)
        members[name] = member
        if "set" in member:
            sets.append(name)
    result: Plan = {"members": members}
    if only:
        result["only"] = True
    if sets:
        result["sets"] = sets
    renames = [one for one in own if one.what == "rename" and len(one.steps) == 1]
    if renames:
        result["renames"] = [{"old": name_of(one.steps[0]), "new": one.detail} for one in renames]
    if of_elements:
        result["elements"] = _node([*of_elements, *own], only=only)
    return result


def _member(name: str, changes: Sequence[Change], *, only: bool) -> Plan:
    """What happens to one member. The changes that end here have no more steps."""
    here = [one for one in changes if not one.steps]
    deeper = [one for one in changes if one.steps]
    whole = any(one.what == "keep" for one in here)
    kept = whole or any(one.what == "keep" for one in deeper)
    written = any(one.what in ("set", "rename") for one in changes)
    member: Plan = {}
    for one in here:
        if one.what == "remove":
            member["remove"] = True
        elif one.what == "rename":
            member["rename"] = quoted(one.detail)
        elif one.what == "capture":
            member.setdefault("capture", []).append(one.detail)
    if only and not kept and not written:
        member["remove"] = True
    inside = [one for one in deeper if not (whole and one.what == "keep")]
    if inside:
        member["node"] = _node(inside, only=only and not whole)
    value = _value(changes)
    if value is not None:
        member["set"] = {"name": quoted(name), **value}
    return member


def _value(changes: Iterable[Change]) -> Value | None:
    """The value of a member that is set, or that is made because something inside of it is set."""
    sets = [one for one in changes if one.what == "set" and ELEMENTS not in one.steps]
    for one in sets:
        if not one.steps:
            return dict(one.detail)
    members = list(_members(sets))
    return {"members": members} if members else None


def _members(sets: Sequence[Change]) -> Iterator[Value]:
    for step in dict.fromkeys(one.steps[0] for one in sets):
        value = _value([one.inner() for one in sets if one.steps[0] == step])
        if value is not None:
            yield {"name": quoted(name_of(step)), **value}
