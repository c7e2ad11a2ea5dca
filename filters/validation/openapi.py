"""OpenAPI 3.0, 3.1 and 3.2 documents as operations that requests and responses can be compared with.

References within the document are followed. Nothing is ever fetched. https://spec.openapis.org/oas/v3.2.0.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal
from urllib.parse import quote, unquote

from filters.validation.document_parts import Pointer, base_path, mapping, sequence
from filters.validation.documents import DocumentError
from filters.validation.faults import pointer
from filters.validation.parameters import Parameter, Shape
from filters.validation.schemas import Schema, compiled, registry

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
Side = Literal["request", "response"]
_URIS: Mapping[Side, str] = {"request": "urn:openapi:request", "response": "urn:openapi:response"}
_STYLES = {"path": "simple", "query": "form", "querystring": "form", "header": "simple", "cookie": "form"}
_ALLOWED = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "querystring": ("form",),
    "header": ("simple",),
    "cookie": ("form", "cookie"),
}
_IGNORED = frozenset({"accept", "content-type", "authorization"})
"""Header parameters that OpenAPI says to ignore."""
_DEEPEST = 64
"""References, one to the next, and levels of nested schemas that are looked at for the written form of a parameter."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body by its media types. A schema of None accepts everything. `forms` are the parameters of forms by type."""

    required: bool
    schemas: Mapping[str, Schema | None]
    forms: Mapping[str, tuple[Parameter, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its name for people, its parameters, and its bodies."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    responses: Mapping[str, tuple[Body, tuple[Parameter, ...]]]


@dataclass(frozen=True, slots=True)
class _Path:
    regex: re.Pattern[str]
    names: tuple[str, ...]
    template: str
    methods: Mapping[str, Pointer]


class OpenApi:
    """A document. Operations are compiled when they are first asked for. `base` is the path before all paths.

    Raises DocumentError.
    """

    def __init__(self, document: Any, *, base: str | None = None, formats: bool = False) -> None:
        version = str(document.get("openapi", "")) if isinstance(document, dict) else ""
        if not re.fullmatch(r"3\.[0-2]\.\d+(-.*)?", version):
            raise DocumentError("it is no OpenAPI document of version 3.0, 3.1 or 3.2")
        self._old = version.startswith("3.0.")
        self._document = document
        self._formats = formats
        self._base = (base_path(document) if base is None else base).rstrip("/")
        self._paths = sorted(self._all_paths(), key=lambda one: (len(one.names), one.template))
        self._operations: dict[Pointer, Operation] = {}

    def check(self) -> Iterator[str]:
        """Yield what is wrong with each operation."""
        for path in self._paths:
            for method, where in path.methods.items():
                try:
                    self._operation(path, where)
                except DocumentError as error:
                    yield f"{method.upper()} {path.template}: {error}"

    def find(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]] | tuple[str, ...] | None:
        """The operation of a request and the raw values in its path, or the methods of the path, or None.

        HEAD is GET if the document has no HEAD.
        """
        allowed: list[str] = []
        for one in self._paths:
            match = one.regex.fullmatch(path)
            if match is None:
                continue
            where = one.methods.get(method) or (one.methods.get("GET") if method == "HEAD" else None)
            if where is not None:
                return self._operation(one, where), dict(zip(one.names, match.groups(), strict=True))
            allowed += one.methods
        return tuple(sorted(set(allowed))) or None

    def _operation(self, path: _Path, where: Pointer) -> Operation:
        if where not in self._operations:
            self._operations[where] = self._compiled(path, where)
        return self._operations[where]

    # The document ---------------------------------------------------------------------------------------------

    def _all_paths(self) -> Iterator[_Path]:
        paths = self._document.get("paths", {})
        if not isinstance(paths, dict):
            raise DocumentError("'paths' is a mapping")
        for template in paths:
            if not template.startswith("/"):
                if template.startswith("x-"):
                    continue
                raise DocumentError(f"the path '{template}' does not begin with a slash")
            item, where = self._resolved(("paths", template))
            methods = {one.upper(): (*where, one) for one in METHODS if one in item}
            for name in mapping(item, "additionalOperations", where):
                methods[name] = (*where, "additionalOperations", name)
            regex, names = _template(self._base + template)
            yield _Path(regex, names, template, methods)

    def _at(self, where: Pointer) -> Any:
        value = self._document
        for name in where:
            if isinstance(value, list):
                value = value[int(name)] if name.isdecimal() and int(name) < len(value) else None
            else:
                value = value.get(name) if isinstance(value, dict) else None
            if value is None:
                raise DocumentError(f"{pointer(where)} does not exist")
        return value

    def _resolved(self, where: Pointer) -> tuple[dict[str, Any], Pointer]:
        """The object at a place, or the one that it refers to, and the place of that."""
        for _ in range(_DEEPEST):
            value = self._at(where)
            if not isinstance(value, dict):
                raise DocumentError(f"{pointer(where)} is no mapping")
            reference = value.get("$ref")
            if reference is None:
                return value, where
            where = _target(str(reference), where)
        raise DocumentError(f"the reference at {pointer(where)} leads in a circle")

    @cached_property
    def _known(self) -> Any:
        return registry({uri: self._for(side) for side, uri in _URIS.items()})

    def _for(self, side: Side) -> Any:
        """The document with the schemas that one side uses, in the form of JSON Schema 2020-12."""
        return {
            key: _schemas(value, side, old=self._old)
            for key, value in self._document.items()
            if key in ("components", "paths")
        }

    def _schema(self, where: Pointer, side: Side) -> Schema:
        fragment = quote(pointer(where), safe="/~")
        try:
            return compiled({"$ref": f"{_URIS[side]}#{fragment}"}, formats=self._formats, known=self._known)
        except DocumentError as error:
            raise DocumentError(f"{pointer(where)}: {error}") from None

    # Operations -----------------------------------------------------------------------------------------------

    def _compiled(self, path: _Path, where: Pointer) -> Operation:
        operation, where = self._resolved(where)
        parameters: dict[tuple[str, str], Parameter] = {}
        for owner in (where[:-1], where):
            for number in range(len(sequence(self._at(owner), "parameters", owner))):
                one = self._parameter((*owner, "parameters", str(number)))
                if not (one.where == "header" and one.name.lower() in _IGNORED):
                    parameters[one.where, one.name] = one
        missing = [name for name in path.names if ("path", name) not in parameters]
        if missing:
            raise DocumentError(f"the parameter {missing[0]} of the path is not described")
        return Operation(
            name=str(operation.get("operationId") or f"{where[-1].upper()} {path.template}"),
            parameters=tuple(parameters.values()),
            body=self._body((*where, "requestBody")) if "requestBody" in operation else None,
            responses={
                str(status).upper(): self._response((*where, "responses", status))
                for status in mapping(operation, "responses", where)
                if not status.startswith("x-")
            },
        )

    def _parameter(self, where: Pointer) -> Parameter:
        value, where = self._resolved(where)
        name, place = value.get("name"), value.get("in")
        if not isinstance(name, str) or not isinstance(place, str) or place not in _STYLES:
            raise DocumentError(f"{pointer(where)} needs 'name', and 'in' with one of {', '.join(_STYLES)}")
        return self._described(value, where, name, place, "request")

    def _described(
        self, value: Mapping[str, Any], where: Pointer, name: str, place: Any, side: Side
    ) -> Parameter:
        """The parameter or header that an object describes by `schema` or `content`."""
        style = str(value.get("style") or _STYLES[place])
        if style not in _ALLOWED[place]:
            raise DocumentError(f"{pointer(where)}: in '{place}' there is no style '{style}'")
        content = mapping(value, "content", where)
        if content:
            kind = next(iter(content))
            at, json = (*where, "content", kind, "schema"), is_json(kind)
            known = "schema" in mapping(content, kind, (*where, "content"))
        else:
            at, json, known = (*where, "schema"), False, "schema" in value
        return Parameter(
            name=name,
            where=place,
            schema=self._schema(at, side) if known else compiled(True, formats=False),
            shape=self._shape(at) if known else Shape(),
            required=bool(value.get("required", False)),
            style=style,
            explode=bool(value.get("explode", style in ("form", "deepObject", "cookie"))),
            json=json,
        )

    def _body(self, where: Pointer) -> Body:
        value, where = self._resolved(where)
        return self._content(value, where, "request", required=bool(value.get("required", False)))

    def _content(self, value: Mapping[str, Any], where: Pointer, side: Side, *, required: bool) -> Body:
        schemas: dict[str, Schema | None] = {}
        forms: dict[str, tuple[Parameter, ...]] = {}
        for kind in mapping(value, "content", where):
            media, place = self._resolved((*where, "content", kind))
            at = (*place, "schema")
            name = kind.partition(";")[0].strip().lower()
            schemas[name] = self._schema(at, side) if "schema" in media else None
            if name == FORM and "schema" in media:
                forms[name] = tuple(self._form(at, mapping(media, "encoding", place), side))
        return Body(required, schemas, forms)

    def _form(self, where: Pointer, encoding: Mapping[str, Any], side: Side) -> Iterator[Parameter]:
        """The members of a form as parameters of a query."""
        for name, shape in (self._shape(where).properties or {}).items():
            own = mapping(encoding, name, where)
            style = str(own.get("style") or "form")
            yield Parameter(
                name=name,
                where="query",
                schema=compiled(True, formats=False),
                shape=shape,
                style=style,
                explode=bool(own.get("explode", style in ("form", "deepObject"))),
                json=is_json(str(own.get("contentType", ""))),
            )

    def _response(self, where: Pointer) -> tuple[Body, tuple[Parameter, ...]]:
        value, where = self._resolved(where)
        headers = []
        for name in mapping(value, "headers", where):
            if name.lower() != "content-type":
                described, at = self._resolved((*where, "headers", name))
                headers.append(self._described(described, at, name, "header", "response"))
        return self._content(value, where, "response", required=False), tuple(headers)

    def _shape(self, where: Pointer, depth: int = 0) -> Shape:
        """The types that a schema allows, so far as the written form of parameters depends on them."""
        if depth > _DEEPEST:
            return Shape()
        schema = self._at(where)
        if not isinstance(schema, dict):
            return Shape()
        parts = [self._shape(where_, depth + 1) for where_ in self._parts(schema, where)]
        own = schema.get("type", [])
        types = {own} if isinstance(own, str) else set(map(str, sequence(schema, "type", where)))
        if schema.get("nullable") is True and types:
            types.add("null")
        properties = {
            name: self._shape((*where, "properties", name), depth + 1)
            for name in mapping(schema, "properties", where)
        }
        elements = (
            self._shape((*where, "items"), depth + 1) if isinstance(schema.get("items"), dict) else None
        )
        for part in parts:
            types |= part.types
            properties = {**(part.properties or {}), **properties}
            elements = elements or part.elements
        if not types and properties:
            types = {"object"}
        return Shape(frozenset(types), elements, properties)

    def _parts(self, schema: Mapping[str, Any], where: Pointer) -> Iterator[Pointer]:
        if "$ref" in schema:
            yield _target(str(schema["$ref"]), where)
        for key in ("allOf", "anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                yield from ((*where, key, str(number)) for number in range(len(schema[key])))


FORM = "application/x-www-form-urlencoded"


def is_json(kind: str) -> bool:
    """True for JSON and types that end in +json (RFC 6839)."""
    name = kind.partition(";")[0].strip().lower()
    return name in ("application/json", "text/json") or (name.endswith("+json") and "/" in name)


def best(kinds: Iterable[str], kind: str) -> str | None:
    """The most specific of some media types and ranges that a media type belongs to, or None."""
    name = kind.partition(";")[0].strip().lower()
    for one in (name, f"{name.partition('/')[0]}/*", "*/*"):
        if one in kinds:
            return one
    return None


def status_of(responses: Mapping[str, Any], status: int) -> str | None:
    """The key that describes a status: the status, its class such as 2XX, or `default`."""
    for one in (str(status), f"{status // 100}XX", "DEFAULT"):
        if one in responses:
            return one
    return None


_NAME = re.compile(r"\{([^{}/]+)\}")


@lru_cache(maxsize=65536)
def _template(path: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """The expression of a path template, over a path whose unreserved letters are not escaped."""
    parts = _NAME.split(path)
    names = tuple(parts[1::2])
    text = "".join("([^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(text), names


def _target(reference: str, where: Pointer) -> Pointer:
    if not reference.startswith("#/"):
        message = f"{pointer(where)} refers to '{reference}'; only references within the document (#/…) are followed"
        raise DocumentError(message)
    parts = unquote(reference[2:]).split("/")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


_LIMITS = (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum"))
_ONLY: Mapping[Side, str] = {"request": "readOnly", "response": "writeOnly"}


def _schemas(value: Any, side: Side, *, old: bool) -> Any:
    """A part of the document in which schemas are for one side, and of 2020-12 if they are of OpenAPI 3.0."""
    if isinstance(value, list):
        return [_schemas(one, side, old=old) for one in value]
    if not isinstance(value, dict):
        return value
    if old and "$ref" in value and isinstance(value["$ref"], str):
        return {"$ref": value["$ref"]}
    found = {
        key: one
        if key in ("example", "examples", "default", "enum", "const")
        else _schemas(one, side, old=old)
        for key, one in value.items()
    }
    properties, required = found.get("properties"), found.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        kept = [name for name in required if not _is(properties.get(name), _ONLY[side])]
        found["required"] = kept
    return _modern(found) if old else found


def _is(schema: Any, key: str) -> bool:
    return isinstance(schema, dict) and schema.get(key) is True


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of OpenAPI 3.0, which is nearly JSON Schema draft 5, as one of 2020-12."""
    for exclusive, limit in _LIMITS:
        if schema.get(exclusive) is True and limit in schema:
            schema[exclusive] = schema.pop(limit)
        elif isinstance(schema.get(exclusive), bool):
            del schema[exclusive]
    if schema.pop("nullable", False) is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    return schema
