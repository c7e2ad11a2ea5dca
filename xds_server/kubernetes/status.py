"""The status of objects of the Gateway API: what to write, from what is wanted and what is there.

Conditions are wanted without a `lastTransitionTime`, which changes only with `status`. In `parents` of routes and in
`ancestors` of policies, the entries of other controllers stay as they are: the API server takes these lists as a
whole. https://gateway-api.sigs.k8s.io/concepts/conformance/ and the comments of the fields in the CRDs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from xds_server.kubernetes.resources import Object

Entries = list[Object]
SHARED = {"parents": "parentRef", "ancestors": "ancestorRef"}
"""Lists that several controllers write, and the field by which an entry is found."""
_DEFAULTS = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
"""What the API server adds to a reference."""


def shared_list(wanted: Object) -> str | None:
    """Return the name of the list that other controllers write too, or None if the status has no such list."""
    return next((name for name in SHARED if name in wanted), None)


def with_times(wanted: Object, current: Object, now: str) -> Object:
    """Return a status whose conditions have times: those of the current ones, or `now` if `status` differs."""
    made = dict(wanted)
    if "conditions" in wanted:
        made["conditions"] = _dated(wanted["conditions"], current.get("conditions") or [], now)
    if "listeners" in wanted:
        before = {one["name"]: one for one in current.get("listeners") or []}
        made["listeners"] = [with_times(one, before.get(one["name"], {}), now) for one in wanted["listeners"]]
    return made


def merged(wanted: Entries, current: Entries, field: str, controller: str, now: str) -> Entries:
    """Return a shared list with our entries as wanted. Others keep their content, and all keep their order."""
    left = {_reference(entry, field): entry for entry in wanted}
    entries: Entries = []
    for entry in current:
        if entry.get("controllerName") != controller:
            entries.append(entry)
        elif (ours := left.pop(_reference(entry, field), None)) is not None:
            entries.append(_entry(ours, entry, field, controller, now))
    added = [_entry(entry, {}, field, controller, now) for entry in left.values()]
    return entries + added


def holds(current: Any, wanted: Any, *, exactly: bool = False) -> bool:
    """Return true if everything wanted is in a current status, and with `exactly` nothing else in the wanted lists.

    Items of a list are found by their `type` or `name`, because the order of such lists has no meaning.
    """
    if isinstance(wanted, dict):
        return isinstance(current, dict) and all(
            holds(current.get(key), value, exactly=exactly) for key, value in wanted.items()
        )
    key = _key_of(wanted)
    if key is None:
        return bool(current == wanted)
    found = {item.get(key): item for item in current or []}
    if exactly and len(found) != len(wanted):
        return False
    return all(holds(found.get(item[key]), item, exactly=exactly) for item in wanted)


def _key_of(wanted: Any) -> str | None:
    """Return the field by which the items of a list are found: conditions by `type`, listeners and features by `name`."""
    if not isinstance(wanted, list) or not wanted or not isinstance(wanted[0], dict):
        return None
    if "name" in wanted[0]:
        return "name"
    return "type" if "status" in wanted[0] else None


def _entry(wanted: Object, current: Object, field: str, controller: str, now: str) -> Object:
    reference = {**_DEFAULTS, **wanted[field]}
    return {**with_times(wanted, current, now), field: reference, "controllerName": controller}


def _reference(entry: Object, field: str) -> str:
    return json.dumps({**_DEFAULTS, **entry[field]}, sort_keys=True)


def _dated(wanted: Iterable[Object], current: Iterable[Object], now: str) -> Entries:
    before = {one["type"]: one for one in current}
    return [{**one, "lastTransitionTime": _time(one, before.get(one["type"]), now)} for one in wanted]


def _time(condition: Object, before: Object | None, now: str) -> str:
    if before is None or before.get("status") != condition["status"]:
        return now
    time: str = before.get("lastTransitionTime") or now
    return time
