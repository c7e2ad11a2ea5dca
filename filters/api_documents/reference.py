"""The reference of an API as frozen values, whatever kind of document it comes from. Pages and the search read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["openapi", "graphql", "grpc"]
Where = Literal["path", "query", "querystring", "header", "cookie", "argument"]


class Absent:
    """No value, for values that may be null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "absent"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A value as people read it. `ref` is the name of a schema in `ApiReference.schemas`, which says the rest.

    `types` are those of JSON Schema, or scalars of GraphQL and protobuf; no types stand for any value, and `never` for none.
    `limits` are further keywords of JSON Schema, such as `maxLength`, with their values. Values must not be changed.
    """

    ref: str = ""
    types: tuple[str, ...] = ()
    format: str = ""
    title: str = ""
    description: str = ""
    enum: tuple[Any, ...] = ()
    default: Any = ABSENT
    examples: tuple[Any, ...] = ()
    properties: tuple[Property, ...] = ()
    additional: Schema | None = None
    items: Schema | None = None
    prefix_items: tuple[Schema, ...] = ()
    all_of: tuple[Schema, ...] = ()
    any_of: tuple[Schema, ...] = ()
    one_of: tuple[Schema, ...] = ()
    limits: tuple[tuple[str, Any], ...] = ()
    deprecated: bool = False
    read_only: bool = False
    write_only: bool = False

    @property
    def parts(self) -> Iterator[Schema]:
        """The schemas directly within this one."""
        yield from (one.schema for one in self.properties)
        yield from (one for one in (self.additional, self.items) if one is not None)
        for some in (self.prefix_items, self.all_of, self.any_of, self.one_of):
            yield from some

    @property
    def label(self) -> str:
        """The type in a few words: ``Order``, ``list of string``, ``integer (int64) or null``."""
        return self.label_in(str)

    def label_in(self, text: Callable[[str], str]) -> str:
        """Return the label in the language of `text`, which translates the words between types."""
        if self.ref:
            return _joined(text, "or", (self.ref, "null") if "null" in self.types else (self.ref,))
        words = [self._word(one, text) for one in self.types if one != "null"]
        if not words and (self.one_of or self.any_of):
            words = [one.label_in(text) for one in (self.one_of or self.any_of) if one.label != "null"]
        if not words and self.all_of:
            words = [_joined(text, "and", (one.label_in(text) for one in self.all_of))]
        if not words and self.properties:
            words = ["object"]
        if "null" in self.types or any(one.label == "null" for one in (*self.one_of, *self.any_of)):
            words.append("null")
        return _joined(text, "or", words) or text("any")

    def _word(self, kind: str, text: Callable[[str], str]) -> str:
        if kind == "array" and self.items is None:
            return text("list")
        if kind == "array" and self.items is not None:
            items = self.items.label_in(text)
            several = " or " in self.items.label
            return text("list of {items}").format(items=f"({items})" if several else items)
        if kind == "object" and self.additional is not None and not self.properties:
            return text("map of {items}").format(items=self.additional.label_in(text))
        return f"{kind} ({self.format})" if self.format else kind


def _joined(text: Callable[[str], str], word: str, some: Iterable[str]) -> str:
    """Return labels as one text, each once."""
    found = ""
    for one in dict.fromkeys(some):
        found = text(f"{{one}} {word} {{other}}").format(one=found, other=one) if found else one
    return found


ANY = Schema()


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """A member of an object, or a field of a message or of a type of GraphQL."""

    name: str
    schema: Schema
    required: bool = False
    arguments: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example. `name` is empty if it is the only one. `value` must not be changed; it is ABSENT at a remote `url`."""

    name: str = ""
    summary: str = ""
    description: str = ""
    value: Any = ABSENT
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a request, an argument of a field, or a header of a response."""

    name: str
    where: Where
    schema: Schema = ANY
    required: bool = False
    deprecated: bool = False
    description: str = ""
    examples: tuple[Example, ...] = ()
    style: str = ""
    explode: bool = True
    json: bool = False
    """True if its value is a JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaType:
    """The content of a body of one media type."""

    name: str
    schema: Schema = ANY
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The body of a request."""

    content: tuple[MediaType, ...] = ()
    required: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response. `status` is a status, a class such as ``4XX``, or ``default``; empty if there are no statuses."""

    status: str = ""
    description: str = ""
    content: tuple[MediaType, ...] = ()
    headers: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityScheme:
    """A way to authenticate: `kind` is that of OpenAPI. `where` and `parameter` are those of an API key."""

    name: str
    kind: str
    description: str = ""
    scheme: str = ""
    where: str = ""
    parameter: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityNeed:
    """A way to authenticate that an operation needs, with scopes."""

    scheme: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call. `id` is its anchor on the page, unique in its API.

    `method` and `path` are those of HTTP; ``query``, ``mutation`` or ``subscription`` and a field of GraphQL; ``unary``,
    ``client stream``, ``server stream`` or ``stream`` and ``/package.Service/Method`` of gRPC. Each of `security` suffices;
    an empty one is no authentication. `operation_id` is that of an OpenAPI document.
    """

    id: str
    method: str
    path: str
    operation_id: str = ""
    summary: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    deprecated: bool = False
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    responses: tuple[Response, ...] = ()
    security: tuple[tuple[SecurityNeed, ...], ...] = ()

    @property
    def title(self) -> str:
        """What people call it."""
        return self.summary or f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A group of operations."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that the document names. `url` has the defaults of its variables, and may be relative."""

    url: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiReference:
    """The reference of an API. `base_path` is the path before those of all operations, without a slash at its end."""

    kind: Kind
    title: str = ""
    version: str = ""
    summary: str = ""
    description: str = ""
    base_path: str = ""
    servers: tuple[Server, ...] = ()
    tags: tuple[Tag, ...] = ()
    operations: tuple[Operation, ...] = ()
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    security: Mapping[str, SecurityScheme] = field(default_factory=dict)

    def resolved(self, schema: Schema) -> Schema:
        """The schema that another one refers to, through any number of references; itself if it refers to none."""
        seen = set()
        while schema.ref and schema.ref not in seen:
            seen.add(schema.ref)
            schema = self.schemas.get(schema.ref, ANY)
        return ANY if schema.ref else schema

    def operation(self, anchor: str) -> Operation | None:
        """The operation with an id, or None."""
        return next((one for one in self.operations if one.id == anchor), None)

    def groups(self) -> Iterator[tuple[Tag, tuple[Operation, ...]]]:
        """Yield the operations by their first tag, in the order of the tags; those without a tag are last."""
        known = {tag.name: tag for tag in self.tags}
        for one in self.operations:
            for name in one.tags[:1]:
                known.setdefault(name, Tag(name=name))
        for name, tag in known.items():
            members = tuple(one for one in self.operations if one.tags[:1] == (name,))
            if members:
                yield tag, members
        rest = tuple(one for one in self.operations if not one.tags)
        if rest:
            yield Tag(name=""), rest
