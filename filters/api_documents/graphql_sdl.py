"""Schemas of GraphQL in its schema definition language as references of APIs. https://spec.graphql.org/"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_ast_schema,
    is_introspection_type,
    is_specified_scalar_type,
    parse,
    validate_schema,
    value_from_ast_untyped,
)
from graphql.validation.validate import validate_sdl

from filters.api_documents.anchors import Anchors
from filters.api_documents.faults import MOST_FAULTS, DocumentFaults, Fault, check_size
from filters.api_documents.reference import (
    ABSENT,
    ApiReference,
    MediaType,
    Operation,
    Parameter,
    Property,
    Response,
    Schema,
    Tag,
)

_GROUPS = {"query": "Queries", "mutation": "Mutations", "subscription": "Subscriptions"}
_MOST_TOKENS = 1_000_000
_SCALARS = {
    "Int": "integer",
    "Float": "number",
    "String": "string",
    "Boolean": "boolean",
    "ID": "string (ID)",
}


def read(content: bytes) -> ApiReference:
    """Return the reference of a schema. Raises DocumentFaults."""
    check_size(content)
    schema = _built(content)
    operations = tuple(_operations(schema))
    roots = {id(one) for one in _roots(schema).values()}
    named = {
        name: _named(one)
        for name, one in sorted(schema.type_map.items())
        if id(one) not in roots and not is_introspection_type(one) and not is_specified_scalar_type(one)
    }
    return ApiReference(
        kind="graphql",
        description=schema.description or "",
        tags=tuple(Tag(name=_GROUPS[kind]) for kind in _roots(schema)),
        operations=operations,
        schemas=named,
    )


def _built(content: bytes) -> GraphQLSchema:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentFaults(
            Fault(message="the file is not UTF-8", remedy="save it as UTF-8", line=line, column=1)
        ) from None
    try:
        document = parse(text, max_tokens=_MOST_TOKENS)
        faults = validate_sdl(document)
        schema = build_ast_schema(document, assume_valid_sdl=True) if not faults else None
        faults = faults or validate_schema(schema) if schema is not None and _roots(schema) else faults
    except GraphQLError as error:
        faults, schema = [error], None
    except RecursionError:
        raise DocumentFaults(Fault(message="the types are nested too deeply", line=1, column=1)) from None
    if faults:
        raise DocumentFaults(*map(_fault, faults[:MOST_FAULTS]))
    if schema is None or not _roots(schema):
        remedy = "add type Query {…}, or schema {query: …}"
        raise DocumentFaults(Fault(message="the schema has no operation", remedy=remedy, line=1, column=1))
    return schema


def _fault(error: GraphQLError) -> Fault:
    place = error.locations[0] if error.locations else None
    return Fault(
        message=error.message.removeprefix("Syntax Error: ").rstrip("."),
        remedy="correct the schema",
        line=place.line if place else 1,
        column=place.column if place else 1,
    )


def _roots(schema: GraphQLSchema) -> dict[str, GraphQLObjectType]:
    """Return the types of operations by the word that begins an operation."""
    found = {
        "query": schema.query_type,
        "mutation": schema.mutation_type,
        "subscription": schema.subscription_type,
    }
    return {kind: one for kind, one in found.items() if one is not None}


def _operations(schema: GraphQLSchema) -> Iterator[Operation]:
    anchors = Anchors()
    for kind, root in _roots(schema).items():
        for name, one in root.fields.items():
            content = MediaType(name="application/json", schema=_type(one.type))
            yield Operation(
                id=anchors.new(f"{kind}-{name}"),
                method=kind,
                path=name,
                description=_description(one),
                tags=(_GROUPS[kind],),
                deprecated=one.deprecation_reason is not None,
                parameters=tuple(_arguments(one.args)),
                responses=(Response(content=(content,)),),
            )


def _description(one: GraphQLField | GraphQLArgument | GraphQLInputField) -> str:
    """Return the description, with the reason of a deprecation."""
    reason = one.deprecation_reason
    parts = (one.description, None if reason is None else f"Deprecated: {reason}")
    return "\n\n".join(part for part in parts if part)


def _arguments(some: Mapping[str, GraphQLArgument]) -> Iterator[Parameter]:
    for name, one in some.items():
        yield Parameter(
            name=name,
            where="argument",
            schema=replace(_type(one.type), default=_default(one)),
            required=_required(one),
            deprecated=one.deprecation_reason is not None,
            description=_description(one),
        )


def _required(one: GraphQLArgument | GraphQLInputField) -> bool:
    return isinstance(one.type, GraphQLNonNull) and _default(one) is ABSENT


def _default(one: GraphQLArgument | GraphQLInputField) -> Any:
    written = one.ast_node.default_value if one.ast_node is not None else None
    return ABSENT if written is None else value_from_ast_untyped(written)


def _type(kind: Any) -> Schema:
    """Return a type with its modifiers. A type without ``!`` may be null."""
    nullable = not isinstance(kind, GraphQLNonNull)
    inner = kind if nullable else kind.of_type
    null = ("null",) if nullable else ()
    if isinstance(inner, GraphQLList):
        return Schema(types=("array", *null), items=_type(inner.of_type))
    if inner.name in _SCALARS:
        return Schema(types=(_SCALARS[inner.name], *null))
    return Schema(ref=inner.name, types=null)


def _named(kind: GraphQLNamedType) -> Schema:
    description = kind.description or ""
    if isinstance(kind, GraphQLEnumType):
        return Schema(types=("string",), description=description, enum=tuple(kind.values))
    if isinstance(kind, GraphQLUnionType):
        members = tuple(Schema(ref=one.name) for one in kind.types)
        return Schema(description=description, one_of=members)
    if isinstance(kind, GraphQLInputObjectType):
        return Schema(types=("object",), description=description, properties=tuple(_inputs(kind)))
    if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
        return Schema(types=("object",), description=description, properties=tuple(_fields(kind)))
    return Schema(types=("string",), format=kind.name, description=description)


def _inputs(kind: GraphQLInputObjectType) -> Iterator[Property]:
    for name, one in kind.fields.items():
        schema = replace(
            _type(one.type),
            default=_default(one),
            description=_description(one),
            deprecated=one.deprecation_reason is not None,
        )
        yield Property(name=name, schema=schema, required=_required(one))


def _fields(kind: GraphQLObjectType | GraphQLInterfaceType) -> Iterator[Property]:
    for name, one in kind.fields.items():
        deprecated = one.deprecation_reason is not None
        schema = replace(_type(one.type), description=_description(one), deprecated=deprecated)
        required = isinstance(one.type, GraphQLNonNull)
        yield Property(name=name, schema=schema, required=required, arguments=tuple(_arguments(one.args)))
