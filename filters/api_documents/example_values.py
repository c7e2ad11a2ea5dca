"""Values that fit a schema: its own examples, or the simplest or a random value. The result is JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

from filters.api_documents.matching_texts import LONGEST, Random, matching
from filters.api_documents.reference import ABSENT, ApiReference, Parameter, Schema

Side = Literal["request", "response"]
_DEEPEST = 12
"""Levels of values within values. Optional parts below are left out."""
_MOST_VALUES = 5_000
"""Values of one example. Optional parts beyond are left out."""
_FORMATS = {
    "date-time": "2026-11-01T12:00:00Z",
    "date": "2026-11-01",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "idn-email": "someone@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "iri": "https://example.com/",
    "uri-reference": "/",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "json-pointer": "/a",
    "regex": ".*",
    "byte": base64.b64encode(b"text").decode(),
    "binary": "text",
    "int64": "0",
    "uint64": "0",
}


@dataclass(slots=True)
class _Budget:
    left: int = _MOST_VALUES


def of_schema(
    schema: Schema, reference: ApiReference, side: Side = "response", random: Random | None = None
) -> Any:
    """Return a value that fits a schema, or ABSENT if none does.

    Examples and defaults of the schema win. With `random`, it is a random value without them.
    """
    return _Values(reference, side, random).value(schema, (), optional=False)


def of_parameter(parameter: Parameter, reference: ApiReference) -> Any:
    """Return a value for a parameter: its first example, or one that fits its schema."""
    for one in parameter.examples:
        if one.value is not ABSENT:
            return one.value
    return of_schema(parameter.schema, reference, "request")


class _Values:
    def __init__(self, reference: ApiReference, side: Side, random: Random | None) -> None:
        self._reference, self._side, self._random = reference, side, random
        self._budget = _Budget()

    def value(self, schema: Schema, within: tuple[str, ...], *, optional: bool) -> Any:
        """Return a value. `within` are the named schemas that it is a part of. ABSENT if an optional one is too much."""
        self._budget.left -= 1
        if schema.ref:
            again = within.count(schema.ref)
            if again and (optional or again > 1):
                return ABSENT  # a value that contains itself ends here
            own = self._written(schema)
            if own is not ABSENT:
                return own
            named = self._reference.schemas.get(schema.ref)
            return {} if named is None else self.value(named, (*within, schema.ref), optional=optional)
        own = self._written(schema)
        if own is not ABSENT:
            return own
        if optional and (len(within) > _DEEPEST or self._budget.left < 0):
            return ABSENT
        if len(within) > 4 * _DEEPEST or self._budget.left < -_MOST_VALUES:
            return ABSENT
        if schema.all_of:
            return self._all(schema, within)
        for some in (schema.one_of, schema.any_of):
            if some:
                return self._one_of(schema, some, within)
        return self._typed(schema, within)

    def _written(self, schema: Schema) -> Any:
        """Return the value that the schema itself names."""
        if schema.enum:
            return schema.enum[0] if self._random is None else self._random.choice(schema.enum)
        if self._random is None:
            if schema.examples:
                return schema.examples[0]
            return schema.default
        return ABSENT

    def _all(self, schema: Schema, within: tuple[str, ...]) -> Any:
        """Return a value that has the members of all parts."""
        found: Any = ABSENT
        for one in (*schema.all_of, *([_without_all(schema)] if schema.properties else ())):
            value = self.value(one, within, optional=False)
            if isinstance(found, dict) and isinstance(value, dict):
                found = {**found, **value}
            elif found is ABSENT or value is not ABSENT:
                found = value
        return found

    def _one_of(self, schema: Schema, some: tuple[Schema, ...], within: tuple[str, ...]) -> Any:
        """Return a value of the first part that has one, or a random part, with the members of the schema itself."""
        order = list(some)
        if self._random is not None:
            order.insert(0, self._random.choice(some))
        order.sort(key=lambda one: one.types == ("null",))
        values = (self.value(one, within, optional=False) for one in order)
        found = next((one for one in values if one is not ABSENT), ABSENT)
        if schema.properties and isinstance(found, dict):
            found = {**self._object(schema, within), **found}
        return found

    def _typed(self, schema: Schema, within: tuple[str, ...]) -> Any:
        kinds = [one for one in schema.types if one != "null"]
        kind = kinds[0] if kinds else "null" if schema.types else ""
        if not kind:
            kind = "object" if schema.properties else "array" if schema.items or schema.prefix_items else ""
        limits = dict(schema.limits)
        if kind == "object":
            return self._object(schema, within)
        if kind == "array":
            return self._array(schema, limits, within)
        if kind in ("integer", "number"):
            return _number(limits, kind == "integer", self._random)
        if kind.startswith("string"):
            return _string(schema, limits, self._random)
        if kind == "boolean":
            return True if self._random is None else self._random.choice((True, False))
        return ABSENT if kind == "never" else None

    def _object(self, schema: Schema, within: tuple[str, ...]) -> dict[str, Any]:
        found = {}
        for one in schema.properties:
            if one.schema.read_only if self._side == "request" else one.schema.write_only:
                continue
            value = self.value(one.schema, (*within, ""), optional=not one.required)
            if value is not ABSENT:
                found[one.name] = value
        if schema.additional is not None and not schema.properties:
            value = self.value(schema.additional, (*within, ""), optional=True)
            if value is not ABSENT:
                found["key"] = value
        return found

    def _array(self, schema: Schema, limits: dict[str, Any], within: tuple[str, ...]) -> list[Any]:
        least = _whole(limits.get("minItems"), 0)
        most = max(_whole(limits.get("maxItems"), max(least, 1)), least)
        count = max(least, min(1, most))
        if self._random is not None:
            count = self._random.randint(least, min(most if "maxItems" in limits else least + 3, least + 3))
        inner = (*within, "")
        found = [self.value(one, inner, optional=False) for one in schema.prefix_items]
        if schema.items is not None:
            wanted = max(0, min(count, 100) - len(found))
            values = (self.value(schema.items, inner, optional=not least) for _ in range(wanted))
            found += [one for one in values if one is not ABSENT]
        return [None if one is ABSENT else one for one in found]


def _without_all(schema: Schema) -> Schema:
    return Schema(types=("object",), properties=schema.properties)


def _whole(value: Any, default: int) -> int:
    return (
        int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        else default
    )


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(limits: dict[str, Any], whole: bool, random: Random | None) -> Any:
    """Return the number within the limits that is nearest to 0, or a random one."""
    step = _real(limits.get("multipleOf")) or (1.0 if whole else 0.0)
    low, high = _real(limits.get("minimum")), _real(limits.get("maximum"))
    above, below = _real(limits.get("exclusiveMinimum")), _real(limits.get("exclusiveMaximum"))
    margin = step or 0.5
    if above is not None and (low is None or above >= low):
        low = above + (margin if step else _between(above, high if high is not None else below))
    if below is not None and (high is None or below <= high):
        high = below - (margin if step else _between(low if low is not None else above, below))
    number = max(low, 0.0) if low is not None else 0.0
    number = min(number, high) if high is not None else number
    if random is not None:
        first = low if low is not None else (high - 1000 if high is not None else 0.0)
        last = high if high is not None else first + 1000
        number = first + (last - first) * random.randint(0, 1000) / 1000
    if step:
        up = number if number % step == 0 else number + step - number % step
        number = up if high is None or up <= high else up - step
    return int(number) if whole or number == int(number) else number


def _between(low: float | None, high: float | None) -> float:
    return 0.5 if low is None or high is None or high - low > 1 else (high - low) / 2


def _string(schema: Schema, limits: dict[str, Any], random: Random | None) -> str:
    form = schema.format
    if form in _FORMATS:
        return _FORMATS[form]
    least, most = _whole(limits.get("minLength"), 0), _whole(limits.get("maxLength"), LONGEST)
    if isinstance(limits.get("pattern"), str):
        text = matching(limits["pattern"], random)
        if text is not None and least <= len(text) <= most:
            return text
    text = (
        "text" if random is None else "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(8))
    )
    text = (text * (least // len(text) + 1))[: max(least, len(text))]
    return text[: min(most, max(least, LONGEST))]
