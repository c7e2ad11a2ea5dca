"""Parameters of OpenAPI: how values of their schemas are written in paths, queries, headers and cookies.

https://spec.openapis.org/oas/v3.2.0.html#style-values
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import unquote, unquote_plus

from filters.validation.faults import Fault
from filters.validation.schemas import MalformedError, Schema, parsed

In = Literal["path", "query", "querystring", "header", "cookie"]
Pairs = Sequence[tuple[str, str]]
"""Names and values that are not decoded yet."""
ABSENT: Any = object()
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
LONGEST_NUMBER = 1_000
"""Characters of a number. Converting longer ones takes long."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a schema says about the written form of its values: their types, and those of elements and properties.

    `types` is empty if any type may be.
    """

    types: frozenset[str] = frozenset()
    elements: Shape | None = None
    properties: Mapping[str, Shape] | None = None

    @property
    def array(self) -> bool:
        """True if values are written as arrays."""
        return "array" in self.types and "string" not in self.types

    @property
    def object(self) -> bool:
        """True if values are written as objects."""
        return "object" in self.types and "string" not in self.types


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation. `json` is true if its value is JSON (`content`) and has no style."""

    name: str
    where: In
    schema: Schema
    shape: Shape
    required: bool = False
    style: str = ""
    explode: bool = False
    json: bool = False

    def faults(self, written: Any) -> Iterator[Fault]:
        """Yield the faults of a value as `read` returns it."""
        if written is ABSENT:
            if self.required:
                yield Fault("it is required", self.where, self.name)
            return
        if isinstance(written, MalformedError):
            yield Fault(f"it is not JSON: {written}", self.where, self.name)
            return
        candidates = written if isinstance(written, _Candidates) else _Candidates([written])
        if not any(self.schema.accepts(one) for one in candidates):
            yield from self.schema.faults(candidates[0], self.where, self.name)


class _Candidates(list[Any]):
    """Values that a text may stand for, because its schema has several types. The first is the most likely one."""


def converted(text: str, shape: Shape) -> Any:
    """The value that a text stands for: of the first type that it fits, and also the text if that is a type."""
    found: list[Any] = []
    types = shape.types
    if types & {"integer", "number"} and len(text) <= LONGEST_NUMBER:
        if _INTEGER.fullmatch(text):
            found.append(int(text))
        elif "number" in types and _NUMBER.fullmatch(text):
            found.append(Decimal(text))
    if "boolean" in types and text in ("true", "false"):
        found.append(text == "true")
    if "null" in types and text in ("", "null"):
        found.append(None)
    if not found or not types or "string" in types:
        found.append(text)
    return found[0] if len(found) == 1 else _Candidates(found)


def _one(text: str, shape: Shape | None) -> Any:
    """An element or a property. It has one value only."""
    value = converted(text, shape or Shape())
    return value[0] if isinstance(value, _Candidates) else value


def _array(texts: Sequence[str], shape: Shape) -> list[Any]:
    return [_one(text, shape.elements) for text in texts]


def _object(pairs: Iterator[tuple[str, str]] | Pairs, shape: Shape) -> dict[str, Any]:
    properties = shape.properties or {}
    return {name: _one(text, properties.get(name)) for name, text in pairs}


def _alternating(parts: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2], strict=False))


def _assigned(parts: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (part.partition("=") for part in parts)]


def _json(text: str) -> Any:
    try:
        return parsed(text.encode("utf-8", "surrogateescape"))
    except MalformedError as error:
        return error


def in_path(parameter: Parameter, raw: str) -> Any:
    """The value in a segment of the path, which is not decoded yet."""
    if parameter.json:
        return _json(unquote(raw))
    shape, style = parameter.shape, parameter.style
    prefix, separator = {"label": (".", "."), "matrix": (";", ";")}.get(style, ("", ","))
    if prefix and not raw.startswith(prefix):
        return unquote(raw)
    text = raw.removeprefix(prefix)
    if style == "matrix":
        return _matrix(parameter, text)
    if shape.array:
        between = separator if parameter.explode else ","
        return _array([unquote(one) for one in text.split(between)] if text else [], shape)
    if shape.object:
        return _object(_pairs(text, separator, explode=parameter.explode), shape)
    return converted(unquote(text), shape)


def _pairs(text: str, separator: str, *, explode: bool) -> list[tuple[str, str]]:
    parts = [unquote(one) for one in text.split(separator if explode else ",")] if text else []
    return _assigned(parts) if explode else _alternating(parts)


def _matrix(parameter: Parameter, text: str) -> Any:
    shape = parameter.shape
    parts = _assigned([unquote(one) for one in text.split(";")])
    if shape.object and parameter.explode:
        return _object(parts, shape)
    own = [value for name, value in parts if name == parameter.name]
    if shape.array:
        return _array(own if parameter.explode else own[0].split(",") if own else [], shape)
    if shape.object:
        return _object(_alternating(own[0].split(",")) if own else [], shape)
    return converted(own[0], shape) if own else ABSENT


_BETWEEN = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "|"}


def in_query(parameter: Parameter, pairs: Pairs) -> Any:
    """The value in a query, or in a body of type application/x-www-form-urlencoded."""
    shape, name = parameter.shape, parameter.name
    if parameter.style == "deepObject":
        return _deep(parameter, pairs)
    if shape.object and parameter.explode and not parameter.json:
        known = shape.properties or {}
        found = [(unquote_plus(key), unquote_plus(value)) for key, value in pairs]
        of_object = [(key, value) for key, value in found if key in known]
        return _object(of_object, shape) if of_object else ABSENT
    own = [value for key, value in pairs if unquote_plus(key) == name]
    if not own:
        return ABSENT
    if parameter.json:
        return _json(unquote_plus(own[0]))
    if shape.array and parameter.explode:
        return _array([unquote_plus(one) for one in own], shape)
    if shape.array or shape.object:
        texts = [unquote_plus(one) for one in _split(own[0], parameter.style)]
        return _array(texts, shape) if shape.array else _object(_alternating(texts), shape)
    # A service might read the last of several.
    return converted(unquote_plus(own[0]), shape) if len(own) == 1 else [unquote_plus(one) for one in own]


def _split(text: str, style: str) -> list[str]:
    if not text:
        return []
    if style == "spaceDelimited":
        return re.split(r"%20|\+", text)
    return re.split(r"\||%7[cC]", text) if style == "pipeDelimited" else text.split(_BETWEEN["form"])


def _deep(parameter: Parameter, pairs: Pairs) -> Any:
    found = []
    for raw, value in pairs:
        key = unquote_plus(raw)
        if key.startswith(f"{parameter.name}[") and key.endswith("]"):
            found.append((key[len(parameter.name) + 1 : -1], unquote_plus(value)))
    return _object(found, parameter.shape) if found else ABSENT


def in_header(parameter: Parameter, value: str | None) -> Any:
    """The value of a header, whose lines are joined by commas."""
    if value is None:
        return ABSENT
    if parameter.json:
        return _json(value)
    shape = parameter.shape
    if shape.array or shape.object:
        parts = [one.strip() for one in value.split(",")] if value else []
        if shape.array:
            return _array(parts, shape)
        return _object(_assigned(parts) if parameter.explode else _alternating(parts), shape)
    return converted(value, shape)


def in_cookie(parameter: Parameter, cookies: Pairs) -> Any:
    """The value of a cookie."""
    shape = parameter.shape
    own = [unquote(value) for name, value in cookies if name == parameter.name]
    if shape.object and parameter.explode:
        known = shape.properties or {}
        pairs = [(name, unquote(value)) for name, value in cookies if name in known]
        return _object(pairs, shape) if pairs else ABSENT
    if not own:
        return ABSENT
    if parameter.json:
        return _json(own[0])
    if shape.array:
        return _array(own if parameter.explode else own[0].split(","), shape)
    if shape.object:
        return _object(_alternating(own[0].split(",")), shape)
    return converted(own[0], shape) if len(own) == 1 else own  # a service might read the last of several


def query_pairs(query: str) -> list[tuple[str, str]]:
    """The pairs of a query, not decoded."""
    return [(name, value) for name, _, value in (one.partition("=") for one in query.split("&") if one)]


def cookie_pairs(header: str) -> list[tuple[str, str]]:
    """The cookies of a Cookie header (RFC 6265 section 4.2.1)."""
    pairs = (one.strip().partition("=") for one in header.split(";"))
    return [(name, value.removeprefix('"').removesuffix('"')) for name, _, value in pairs if name]


def in_querystring(parameter: Parameter, query: str) -> Any:
    """The whole query as one value (OpenAPI 3.2)."""
    if not query:
        return ABSENT
    if parameter.json:
        return _json(unquote(query))
    return _object(
        [(unquote_plus(name), unquote_plus(value)) for name, value in query_pairs(query)], parameter.shape
    )


def decoded(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """Names and values of a form."""
    return ((unquote_plus(name), unquote_plus(value)) for name, value in pairs)


def likely(value: Any) -> Any:
    """The most likely one of the values that a text may stand for."""
    return value[0] if isinstance(value, _Candidates) else value
