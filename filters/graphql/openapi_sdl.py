"""A schema from an OpenAPI document: GET becomes a query, every other method a mutation.

Every name depends only on what it names: a name of the document that GraphQL allows stays as it is, any other one gets a
hash of itself. So no name changes when the document grows, and no two things ever get the same name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from filters.api_documents.faults import Fault
from filters.api_documents.reference import ANY, ApiReference, Operation, Parameter, Property, Schema
from filters.graphql.directives import HELPERS
from filters.graphql.reading import is_header_of_call

_PLAIN = re.compile(r"_?[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
_RESERVED = frozenset({"Query", "Mutation", "Subscription", "JSON", "BigInt"})
_RESERVED_SCALARS = frozenset({"Int", "Float", "String", "Boolean", "ID"})
_NO_TYPES = _RESERVED | _RESERVED_SCALARS | HELPERS
_SCALARS = {"string": "String", "number": "Float", "integer": "BigInt", "boolean": "Boolean"}
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ANY_JSON = "JSON"
_IN_PATH = re.compile(r"\{([^{}/]+)\}")
_CIRCLE = 20
"""References, one to the next, behind which a schema is any JSON."""
HASHED = 6


def plain_name(text: str) -> str:
    """A name of GraphQL for a text. It differs from that of every other text."""
    if _PLAIN.fullmatch(text):
        return text
    return hashed_name(text, text)


def hashed_name(text: str, whole: str) -> str:
    """A name like a text, with a hash of `whole`. Plain names have no two underscores in a row."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "x"
    words = f"n{words}" if words[0].isdigit() else words
    return f"{words}__{hashlib.sha256(whole.encode()).hexdigest()[:HASHED]}"


def _type_name(text: str) -> str:
    return hashed_name(text, text) if text in _NO_TYPES else plain_name(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedSdl:
    """The text of a schema, and why it lacks some operations, each at its path in the document."""

    text: str
    left_out: tuple[Fault, ...]


def generate(reference: ApiReference, upstream: str, prefix: str = "") -> GeneratedSdl:
    """The schema of all operations of a document. `prefix` begins the names of its types and operations."""
    return _Generator(reference, upstream, f"{prefix}_" if prefix else "").generated()


class _LeftOut(Exception):  # noqa: N818 - carries the reason, as data
    """An operation that GraphQL cannot call."""


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    type: str
    parameter: Parameter


class _Generator:
    def __init__(self, reference: ApiReference, upstream: str, prefix: str) -> None:
        self._reference = reference
        self._upstream = upstream
        self._prefix = prefix
        self._types: dict[str, str | None] = {}
        self._left_out: list[Fault] = []

    def generated(self) -> GeneratedSdl:
        """The text. Types are in the order in which operations refer to them."""
        roots: dict[str, list[str]] = {"Query": [], "Mutation": []}
        for one in self._reference.operations:
            if one.method not in _METHODS:
                continue  # their answers have no values, so nobody misses a field
            try:
                roots["Query" if one.method == "GET" else "Mutation"].append(self._operation(one))
            except _LeftOut as reason:
                self._left_out.append(
                    Fault(
                        message=f"the schema has no field for this operation, because {reason}",
                        remedy="give it a route of its own",
                        path=("paths", one.path, one.method.lower()),
                    )
                )
        parts = [f"extend type {name} {{\n{''.join(fields)}}}\n" for name, fields in roots.items() if fields]
        parts += [text for text in self._types.values() if text is not None]
        return GeneratedSdl(text="\n".join(parts), left_out=tuple(self._left_out))

    # Operations --------------------------------------------------------------------------------------------------

    def _operation(self, one: Operation) -> str:
        name = self._field_name(one)
        type_name = name[:1].upper() + name[1:]
        arguments = [*self._arguments(one, type_name)]
        written = [f"{found.name}: {found.type}" for found in arguments]
        body = self._body(one, type_name)
        if body is not None:
            written.append(f"body: {body}")
        directive = [
            f"upstream: {_text(self._upstream)}",
            f"path: {_text(self._path(one, arguments))}",
        ]
        if one.method != "GET":
            directive.append(f"method: {_text(one.method)}")
        headers = [found for found in arguments if found.parameter.where == "header"]
        if headers:
            items = ", ".join(
                f'{{name: {_text(found.parameter.name)}, value: "{{arg:{found.name}}}"}}' for found in headers
            )
            directive.append(f"headers: [{items}]")
        if body is not None:
            directive.append('body: "{arg:body}"')
        listed = f"({', '.join(written)})" if written else ""
        answer = self._answer(one, type_name)
        deprecated = " @deprecated" if one.deprecated else ""
        description = _described(one.summary or one.description)
        return f"{description}  {name}{listed}: {answer} @rest({', '.join(directive)}){deprecated}\n"

    def _field_name(self, one: Operation) -> str:
        if one.operation_id:
            return plain_name(self._prefix + one.operation_id)
        call = f"{one.method} {one.path}"
        return hashed_name(f"{self._prefix}{one.method.lower()} {one.path}", call)

    def _arguments(self, one: Operation, type_name: str) -> Iterator[_Argument]:
        in_path = {found.name for found in one.parameters if found.where == "path"}
        for found in one.parameters:
            fault = _unusable(found, self._reference.resolved(found.schema))
            if fault and found.required:
                raise _LeftOut(f"the parameter '{found.name}' {fault}")
            if fault:
                continue
            name = plain_name(found.name)
            if found.where != "path" and (found.where == "header" or found.name in (*in_path, "body")):
                name = f"{name}__{found.where}"
            kind = self._type(found.schema, f"{type_name}__{name}", inputs=True)
            yield _Argument(name, f"{kind}!" if found.required else kind, found)

    def _path(self, one: Operation, arguments: Sequence[_Argument]) -> str:
        names = {found.parameter.name: found.name for found in arguments if found.parameter.where == "path"}
        path = _IN_PATH.sub(lambda match: f"{{arg:{names.get(match[1], match[1])}}}", one.path)
        query = [
            f"{_query_name(found.parameter.name)}={{arg:{found.name}{'*' if found.parameter.explode else ''}}}"
            for found in arguments
            if found.parameter.where == "query"
        ]
        path = self._reference.base_path + path
        return f"{path}?{'&'.join(query)}" if query else path

    def _body(self, one: Operation, type_name: str) -> str | None:
        if one.body is None:
            return None
        content = next((found for found in one.body.content if _is_json(found.name)), None)
        if content is None:
            if one.body.required:
                raise _LeftOut("its body is not JSON")
            return None
        if one.method == "GET":
            raise _LeftOut("a query has no body")
        kind = self._type(content.schema, f"{type_name}__body", inputs=True)
        return f"{kind}!" if one.body.required else kind

    def _answer(self, one: Operation, type_name: str) -> str:
        for found in sorted(one.responses, key=lambda response: response.status):
            if found.status.startswith("2") or found.status == "default":
                content = next((media for media in found.content if _is_json(media.name)), None)
                if content is not None:
                    return self._type(content.schema, f"{type_name}__answer", inputs=False)
        return _ANY_JSON

    # Types -------------------------------------------------------------------------------------------------------

    def _type(self, schema: Schema, name: str, *, inputs: bool) -> str:
        """The type of a schema; `name` is that of an object without a name of its own."""
        for _ in range(_CIRCLE):
            if schema.ref:
                name = _type_name(self._prefix + schema.ref)
                name = f"{name}__Input" if inputs else name
                if name in self._types:
                    return name
                schema = self._reference.schemas.get(schema.ref, ANY)
                continue
            alternatives = [one for one in (*schema.one_of, *schema.any_of) if one.types != ("null",)]
            if len(alternatives) == 1 and not schema.properties:
                schema = alternatives[0]
            elif len(schema.all_of) == 1 and not schema.properties and not alternatives:
                schema = schema.all_of[0]
            else:
                return _ANY_JSON if alternatives else self._of(schema, name, inputs=inputs)
        return _ANY_JSON

    def _of(self, schema: Schema, name: str, *, inputs: bool) -> str:
        properties = [*self._properties(schema, inputs=inputs)]
        if properties:
            return self._object(schema, name, properties, inputs=inputs)
        types = [one for one in schema.types if one != "null"]
        if types == ["array"] and schema.items is not None:
            return f"[{self._type(schema.items, f'{name}__item', inputs=inputs)}]"
        if types == ["integer"] and schema.format == "int32":
            return "Int"
        if len(types) == 1 and types[0] in _SCALARS:
            return _SCALARS[types[0]]
        return _ANY_JSON

    def _properties(self, schema: Schema, depth: int = 0, *, inputs: bool) -> Iterator[Property]:
        """The properties of an object and of all that it consists of."""
        if schema.ref:
            schema = self._reference.resolved(schema)
        if depth > _CIRCLE:
            return
        for part in schema.all_of:
            yield from self._properties(part, depth + 1, inputs=inputs)
        for one in schema.properties:
            if not (one.schema.read_only if inputs else one.schema.write_only):
                yield one

    def _object(self, schema: Schema, name: str, properties: Sequence[Property], *, inputs: bool) -> str:
        if name in self._types:
            return name
        self._types[name] = None  # it may contain itself
        fields = "".join(
            self._property(one, name, inputs=inputs) for one in {one.name: one for one in properties}.values()
        )
        word = "input" if inputs else "type"
        self._types[name] = f"{_described(schema.description, '')}{word} {name} {{\n{fields}}}\n"
        return name

    def _property(self, one: Property, owner: str, *, inputs: bool) -> str:
        name = plain_name(one.name)
        kind = self._type(one.schema, f"{owner}__{name}", inputs=inputs)
        if inputs and one.required:
            kind += "!"
        path = re.sub(r"([.\[\]\\])", r"\\\1", one.name)
        renamed = f" @value(from: {_text(path)})" if name != one.name else ""
        deprecated = " @deprecated" if one.schema.deprecated and not (inputs and one.required) else ""
        return f"{_described(one.schema.description)}  {name}: {kind}{renamed}{deprecated}\n"


def _unusable(parameter: Parameter, schema: Schema) -> str:
    """Why a parameter cannot be an argument, or ""."""
    if parameter.where in ("cookie", "querystring") or parameter.json:
        return f"is in a {parameter.where}" if not parameter.json else "is JSON"
    if parameter.where == "header" and not is_header_of_call(parameter.name):
        return "is a header that a call cannot have"
    if parameter.style not in ("simple", "form"):
        return f"has the style {parameter.style}"
    return "is an object" if schema.properties or "object" in schema.types else ""


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind in ("application/json", "*/*", "text/json") or kind.endswith("+json")


def _query_name(name: str) -> str:
    return re.sub(
        r"[^A-Za-z0-9_.~\[\]-]", lambda match: "".join(f"%{one:02X}" for one in match[0].encode()), name
    )


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _described(text: str, indent: str = "  ") -> str:
    return f"{indent}{_text(' '.join(text.split()))}\n" if text.strip() else ""
