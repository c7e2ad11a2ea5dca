"""The difference of two gateways: of the objects that users write, and of Envoy's resources."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.gateway.model.gateway import Gateway, Sections
from xds_server.translate.readable_gateway import Objects, ReadableGateway

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A value that differs, by its dotted key. None stands for a value that is not there, or is the default."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object or resource. `kind` is its section or type; `keys` are the different keys of a changed object.

    `before` and `after` are an object as plain values, if it was compared as plain values.
    """

    kind: str
    name: str
    what: str
    keys: tuple[str, ...] = ()
    before: Any = None
    after: Any = None

    def differences(self) -> Iterator[Difference]:
        """Yield the values that differ, each by its whole key."""
        return _differences(self.before, self.after, "")


def objects(old: Gateway, new: Gateway) -> tuple[Change, ...]:
    """Return the changes in the sections, with the effective policies of routes."""
    return tuple(_changes(_sections(old), _sections(new), old.policies, new.policies))


def readable_objects(old: ReadableGateway, new: ReadableGateway) -> tuple[Change, ...]:
    """Return the same changes of two readable gateways, each with the objects before and after it."""
    changes = _changes(old.objects, new.objects, old.policies, new.policies)
    return tuple(dataclasses.replace(one, before=_found(old, one), after=_found(new, one)) for one in changes)


def resources(old: ReadableGateway, new: ReadableGateway) -> tuple[Change, ...]:
    """Return the changes on the wire."""
    return tuple(_changes(old.resources, new.resources, _NOTHING, _NOTHING))


def _sections(gateway: Gateway) -> Objects:
    return {one.name: getattr(gateway.sections, one.name) for one in dataclasses.fields(Sections)}


def _changes(old: Objects, new: Objects, old_policies: Objects, new_policies: Objects) -> Iterator[Change]:
    for kind in dict.fromkeys((*old, *new)):
        before, after = old.get(kind, _NOTHING), new.get(kind, _NOTHING)
        for name in dict.fromkeys((*before, *after)):
            if name not in after:
                yield Change(kind=kind, name=name, what="removed")
            elif name not in before:
                yield Change(kind=kind, name=name, what="added")
            else:
                keys = tuple(_keys(before[name], after[name]))
                if kind == "routes":
                    keys += tuple(
                        _policies(old_policies.get(name, _NOTHING), new_policies.get(name, _NOTHING))
                    )
                if keys:
                    yield Change(kind=kind, name=name, what="changed", keys=keys)


def _found(gateway: ReadableGateway, change: Change) -> Any:
    """Return an object of a gateway; a route has its effective policies."""
    found = gateway.objects.get(change.kind, _NOTHING).get(change.name)
    if change.kind == "routes" and found is not None:
        return {**found, "policies": gateway.policies.get(change.name, _NOTHING)}
    return found


def _keys(before: Any, after: Any) -> Iterator[str]:
    if before is after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = (key for key in sorted({*before, *after}) if before.get(key) != after.get(key))
        yield from (key for key in keys if key != "policies")
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


def _differences(before: Any, after: Any, key: str) -> Iterator[Difference]:
    if before == after:
        return
    inner = isinstance(before, Mapping) and isinstance(after, Mapping)
    if not inner or key.count(".") >= _DEEPEST:
        yield Difference(key=key, before=before, after=after)
        return
    for name in sorted({*before, *after}):
        yield from _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)


_DEEPEST = 6
"""Levels of keys. What is deeper is shown as a whole."""
