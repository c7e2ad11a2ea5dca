"""Whether every field of a schema can be resolved, and whether its directives agree with its types."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from graphql import (
    GraphQLArgument,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    Node,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_list_type,
)

from filters.graphql.directives import FieldName, Rest
from filters.graphql.faults import SchemaFault, at
from filters.graphql.templates import Source
from filters.language.problems import did_you_mean

if TYPE_CHECKING:
    from filters.graphql.schema import BoundSchema


def check(schema: BoundSchema, upstreams: Collection[str] | None) -> Iterator[SchemaFault]:
    """Yield all faults."""
    found = (schema.types.query_type, schema.types.mutation_type, schema.types.subscription_type)
    roots = {one.name for one in found if one is not None}
    for kind in schema.types.type_map.values():
        if kind.name.startswith("__"):
            continue
        if isinstance(kind, GraphQLInterfaceType):
            yield from _interface(schema, kind)
        elif isinstance(kind, GraphQLObjectType):
            for name in kind.fields:
                yield from _field(schema, kind, name, root=kind.name in roots, upstreams=upstreams)
    yield from _discriminators(schema)
    yield from _circles(schema)


def _interface(schema: BoundSchema, kind: GraphQLInterfaceType) -> Iterator[SchemaFault]:
    for name, one in kind.fields.items():
        for found, word in ((schema.calls, "@rest"), (schema.values, "@value"), (schema.allowed, "@auth")):
            if (kind.name, name) in found:
                message = (
                    f"{word} of the interface '{kind.name}' would not hold for the types that implement it"
                )
                yield at(one.ast_node, message, "write it at the fields of these types")


def _field(
    schema: BoundSchema, kind: GraphQLObjectType, name: str, *, root: bool, upstreams: Collection[str] | None
) -> Iterator[SchemaFault]:
    one = kind.fields[name]
    streams = kind is schema.types.subscription_type
    call = (schema.streams if streams else schema.calls).get((kind.name, name))
    if (kind.name, name) in (schema.calls if streams else schema.streams):
        message = "@sse is for the fields of Subscription, and @rest for all others"
        yield at(one.ast_node, message, "write @sse" if streams else "write @rest")
    if (kind.name, name) in schema.values and (call is not None or root):
        remedy = "use select: of @rest" if call is not None else "write @rest"
        yield at(one.ast_node, f"'{kind.name}.{name}' has no parent's JSON to take a value from", remedy)
    if call is not None:
        yield from _call(schema, kind, call, root=root, upstreams=upstreams)
    elif root:
        remedy = f"add @{'sse' if streams else 'rest'}(upstream: …, path: …)"
        yield at(one.ast_node, f"nothing resolves '{kind.name}.{name}'", remedy)
    used = {source.steps[0] for source in call.sources if source.kind == "arg"} if call is not None else set()
    for argument, declared in one.args.items():
        if argument not in used:
            message = f"no template uses the argument '{argument}' of '{kind.name}.{name}'"
            yield at(declared.ast_node, message, f"write {{arg:{argument}}}, or remove it")
    yield from _size(schema, kind, name)


def _call(
    schema: BoundSchema, kind: GraphQLObjectType, call: Rest, *, root: bool, upstreams: Collection[str] | None
) -> Iterator[SchemaFault]:
    place = call.node
    if upstreams is not None and call.upstream not in upstreams:
        remedy = did_you_mean(call.upstream, upstreams) or "add it below upstreams:"
        yield at(place, "there is no such upstream", remedy, call.upstream)
    one = kind.fields[call.field[1]]
    for source in call.sources:
        if source.kind == "arg":
            yield from _argument(place, source, one.args)
        elif source.kind == "parent" and root:
            yield at(place, f"'{kind.name}' has no parent", "use {arg:NAME}", str(source))
        elif source.kind == "parent" and _is_called(schema, (kind.name, source.steps[0])):
            message = f"the value of '{kind.name}.{source.steps[0]}' comes from a call of its own"
            yield at(place, message, "use what the JSON of the parent has", str(source))


def _argument(place: Node, source: Source, arguments: dict[str, GraphQLArgument]) -> Iterator[SchemaFault]:
    found: Any = arguments.get(source.steps[0])
    known: Collection[str] = arguments
    for step in (*source.steps[1:], None):
        if found is None:
            yield at(place, "there is no such argument", did_you_mean(source.name, known), str(source))
            return
        if step is None:
            return
        inner = get_named_type(found.type)
        if not isinstance(inner, GraphQLInputObjectType):
            if inner.name == "JSON":
                return
            yield at(place, f"'{inner.name}' has no fields", f"write {{arg:{source.steps[0]}}}", str(source))
            return
        known, found = inner.fields, inner.fields.get(step)


def _size(schema: BoundSchema, kind: GraphQLObjectType, name: str) -> Iterator[SchemaFault]:
    size, one = schema.sizes.get((kind.name, name)), kind.fields[name]
    if size is None:
        return
    if not is_list_type(get_nullable_type(one.type)):
        yield at(one.ast_node, f"@listSize: '{kind.name}.{name}' is no list", "remove it")
    for argument in size.arguments:
        if argument not in one.args:
            remedy = did_you_mean(argument, one.args)
            yield at(one.ast_node, "@listSize: there is no such argument", remedy, argument)


def _discriminators(schema: BoundSchema) -> Iterator[SchemaFault]:
    for name, one in schema.discriminators.items():
        kind = schema.types.type_map[name]
        assert is_abstract_type(kind), "the directive is allowed only there"
        possible = [member.name for member in schema.types.get_possible_types(kind)]
        for _, wanted in one.mapping:
            if wanted not in possible:
                message = f"@discriminator: '{wanted}' is no type of '{name}'"
                yield at(kind.ast_node, message, did_you_mean(wanted, possible), wanted)


def _needs(schema: BoundSchema, field: FieldName) -> set[FieldName]:
    """The fields with calls whose values the call of a field needs, directly or not."""
    found: set[FieldName] = set()
    waiting = [field]
    while waiting:
        call = schema.calls.get(waiting.pop())
        for source in call.sources if call is not None else ():
            needed = (
                (call.field[0], source.steps[0]) if call is not None and source.kind == "parent" else None
            )
            if needed is not None and needed in schema.calls and needed not in found:
                found.add(needed)
                waiting.append(needed)
    return found


def _is_called(schema: BoundSchema, field: FieldName) -> bool:
    """True if a field has a call, and is in no circle: those are told otherwise."""
    return field in schema.calls and field not in _needs(schema, field)


def _circles(schema: BoundSchema) -> Iterator[SchemaFault]:
    for field, call in schema.calls.items():
        if field in _needs(schema, field):
            message = (
                f"the call of '{field[0]}.{field[1]}' needs its own answer, directly or through other fields"
            )
            yield at(call.node, message, "use what the JSON of the parent has")
