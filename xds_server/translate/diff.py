"""The difference of two gateways: of the objects that users write, and of Envoy's resources."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.discovery.snapshot import Snapshot
from xds_server.gateway.model.gateway import Gateway, Sections


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object or resource. `kind` is its section or type; `keys` are the different keys of a changed object."""

    kind: str
    name: str
    what: str
    keys: tuple[str, ...] = ()


def objects(old: Gateway, new: Gateway) -> tuple[Change, ...]:
    """Return the changes in the sections, with the effective policies of routes."""
    changes: list[Change] = []
    for field in dataclasses.fields(Sections):
        before, after = getattr(old.sections, field.name), getattr(new.sections, field.name)
        policies = field.name == "routes"
        for name in dict.fromkeys((*before, *after)):
            if name not in after:
                changes.append(Change(kind=field.name, name=name, what="removed"))
            elif name not in before:
                changes.append(Change(kind=field.name, name=name, what="added"))
            else:
                keys = tuple(_keys(before[name], after[name]))
                if policies:
                    keys += tuple(_policies(old.policies[name], new.policies[name]))
                if keys:
                    changes.append(Change(kind=field.name, name=name, what="changed", keys=keys))
    return tuple(changes)


def resources(old: Snapshot, new: Snapshot) -> tuple[Change, ...]:
    """Return the changes on the wire."""
    changes = []
    for type_, difference in new.diff(old).items():
        for name in difference.changed:
            what = "changed" if name in old[type_] else "added"
            changes.append(Change(kind=type_.name, name=name, what=what))
        changes += [Change(kind=type_.name, name=name, what="removed") for name in difference.removed]
    return tuple(changes)


def _keys(before: Any, after: Any) -> Iterator[str]:
    if before is after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from (key for key in sorted({*before, *after}) if before.get(key) != after.get(key))
    elif dataclasses.is_dataclass(before) and not isinstance(before, type):
        for field in dataclasses.fields(before):
            one, other = getattr(before, field.name), getattr(after, field.name, None)
            if field.name != "policies" and one != other:
                yield field.name
    elif before != after:
        yield "value"


def _policies(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if before is after:
        return iter(())
    return (f"policies.{key}" for key in sorted({*before, *after}) if before.get(key) != after.get(key))
