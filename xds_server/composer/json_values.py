"""JSON that is taken apart only as far as it is needed: what no step names keeps its bytes, such as the digits of a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

Steps = Sequence[str | None]
"""Names of members; None for the elements of an array."""
_OBJECT = msgspec.json.Decoder(dict[str, Raw]).decode
_ARRAY = msgspec.json.Decoder(list[Raw]).decode
_ANY = msgspec.json.Decoder(Raw).decode
_SPACE = b" \t\r\n"
encode = msgspec.json.encode


class _Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()
"""The value of a source that has none."""


class NotJson(Exception):  # noqa: N818 - a fault of another party, as data
    """A text is no JSON (RFC 8259), or is nested too deeply."""


class Json:
    """A JSON text, whose members are decoded once. Raises NotJson if it is none."""

    __slots__ = ("_members", "raw")

    def __init__(self, text: bytes) -> None:
        try:
            text.decode()
            self.raw: Raw = _ANY(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotJson(str(error)) from None
        self._members: Mapping[str, Raw] | None = None

    @property
    def members(self) -> Mapping[str, Raw] | None:
        """The members of an object; None for any other value."""
        if self._members is None and first(self.raw) == b"{":
            self._members = _OBJECT(self.raw)
        return self._members

    def find(self, steps: Steps) -> Any:
        """Return the value at a path, MISSING if there is none: a Raw, or a list of what the elements of an array have."""
        if not steps:
            return self.raw
        if steps[0] is not None and (members := self.members) is not None:
            value = members.get(steps[0])
            return MISSING if value is None else _find(value, steps, 1)
        return _find(self.raw, steps, 0)


def _find(value: Raw, steps: Steps, at: int) -> Any:
    if at == len(steps):
        return value
    step, kind = steps[at], first(value)
    if kind == b"[":
        following = at + 1 if step is None else at
        found = (_find(one, steps, following) for one in _ARRAY(value))
        return [one for one in found if one is not MISSING]
    if step is None or kind != b"{":
        return MISSING
    member = _OBJECT(value).get(step)
    return MISSING if member is None else _find(member, steps, at + 1)


def first(value: Raw) -> bytes:
    """Return the first character of a value, which tells its type."""
    text = memoryview(value)
    begin = bytes(text[:1])
    return (
        begin
        if begin not in _SPACE
        else bytes(text[:256]).lstrip(_SPACE)[:1] or bytes(text).lstrip(_SPACE)[:1]
    )


def members_of(value: Raw) -> Mapping[str, Raw] | None:
    """Return the members of an object; None for any other value."""
    return _OBJECT(value) if first(value) == b"{" else None


def shaped(value: Raw, node: Mapping[str, Any]) -> Any:
    """Return a value without the members that a plan of `filters.transform.plans` removes, and with its new names.

    It is MISSING if the plan keeps some members, and the value has none.
    """
    kind = first(value)
    if kind == b"[":
        element = node.get("elements", node)
        found = (shaped(one, element) for one in _ARRAY(value))
        return [one for one in found if one is not MISSING]
    if kind == b"{":
        return _shaped_object(_OBJECT(value), node)
    return MISSING if node.get("only") else value


def _shaped_object(members: Mapping[str, Raw], node: Mapping[str, Any]) -> dict[str, Any]:
    known, only = node["members"], node.get("only", False)
    result: dict[str, Any] = {}
    renamed: dict[str, Any] = {}
    for name, value in members.items():
        plan = known.get(name)
        if plan is None:
            if not only:
                result[name] = value
        elif not plan.get("remove"):
            inner = shaped(value, plan["node"]) if "node" in plan else value
            if inner is not MISSING:
                (renamed if "rename" in plan else result)[plan.get("rename", name)] = inner
    return {**result, **renamed} if renamed else result


def text(value: Any) -> str | None:
    """Return a value as the text of a path or of a header; None if it has none, such as null and objects.

    The elements of a list are joined by commas.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [text(one) for one in value]
        return None if not texts or None in texts else ",".join(one for one in texts if one is not None)
    if not isinstance(value, Raw):
        return None if value is None or value is MISSING else encode(value).decode().strip('"')
    kind = first(value)
    if kind == b'"':
        decoded: str = msgspec.json.decode(value)
        return decoded
    if kind == b"[":
        return text(list(_ARRAY(value)))
    return None if kind in b"{n" else bytes(value).strip().decode()


Sources = Callable[[Mapping[str, Any]], Any]
"""Returns the value of a source of a rule, MISSING if there is none."""


def filled(template: Mapping[str, Any], sources: Sources) -> Any:
    """Return the value of a template of a rule, MISSING if its source has none and there is no default."""
    if "value" in template:
        return template["value"]
    if "from" in template:
        value = sources(template["from"])
        return template.get("default", MISSING) if value is MISSING else value
    if "object" in template:
        pairs = ((name, filled(one, sources)) for name, one in template["object"])
        return {name: value for name, value in pairs if value is not MISSING}
    values = (filled(one, sources) for one in template["list"])
    return [value for value in values if value is not MISSING]
