"""A schema whose fields are bound to calls: read from documents of SDL (https://spec.graphql.org/), with all faults."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphql import (
    REMOVE,
    DirectiveDefinitionNode,
    DirectiveNode,
    DocumentNode,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    Node,
    ObjectTypeDefinitionNode,
    ObjectTypeExtensionNode,
    ScalarTypeDefinitionNode,
    Source,
    TypeDefinitionNode,
    Visitor,
    build_ast_schema,
    get_named_type,
    is_specified_scalar_type,
    parse,
    validate_schema,
    visit,
)
from graphql.execution import get_directive_values
from graphql.validation.validate import validate_sdl

from filters.graphql import big_int, directives, json_scalars, reading
from filters.graphql.checks import check
from filters.graphql.directives import Auth, Discriminator, FieldName, ListSize, Rest
from filters.graphql.faults import SchemaFault, SchemaFaults, at, of_errors
from filters.graphql.selection import Pick
from filters.language import Mistake

MOST_TOKENS = 1_000_000
"""Tokens of the largest document of SDL that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SdlDocument:
    """A document of SDL, and the name that faults give it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSchema:
    """A schema as clients see it, and what the directives say of its types and fields. It is never changed."""

    types: GraphQLSchema
    calls: Mapping[FieldName, Rest]
    streams: Mapping[FieldName, Rest]
    values: Mapping[FieldName, Pick]
    allowed: Mapping[FieldName, tuple[Auth, ...]]
    weights: Mapping[FieldName, int]
    sizes: Mapping[FieldName, ListSize]
    discriminators: Mapping[str, Discriminator]

    def calls_of(self, parent: GraphQLNamedType, name: str) -> tuple[Rest, ...]:
        """The calls or the stream of a field; for an interface, those of the types that implement it."""
        field = (parent.name, name)
        if field in self.streams:
            return (self.streams[field],)
        if field in self.calls:
            return (self.calls[field],)
        if not isinstance(parent, GraphQLInterfaceType):
            return ()
        possible = ((one.name, name) for one in self.types.get_possible_types(parent))
        return tuple(self.calls[one] for one in possible if one in self.calls)

    @property
    def auths(self) -> tuple[Auth, ...]:
        """Every `@auth` once, in the order of the fields."""
        return tuple({id(one): one for found in self.allowed.values() for one in found}.values())

    @property
    def upstream_calls(self) -> tuple[Rest, ...]:
        """The calls and streams of all fields."""
        return (*self.calls.values(), *self.streams.values())


def read(documents: Sequence[SdlDocument], upstreams: Collection[str] | None = None) -> BoundSchema:
    """Return the schema of all documents together. Raises SchemaFaults. Without `upstreams` their names are not checked."""
    written, declared = _parsed(documents)
    if faults := [*_declared_again(written, declared)]:
        raise SchemaFaults(faults)
    whole = DocumentNode(definitions=(*declared.definitions, *written.definitions))
    faults = [*of_errors(validate_sdl(whole))]
    if faults:
        raise SchemaFaults(faults)
    known = build_ast_schema(whole, assume_valid_sdl=True)
    types = build_ast_schema(_public(written, declared), assume_valid_sdl=True)
    if types.query_type is None:
        remedy = "add type Query {…}"
        raise SchemaFaults([_at_begin(documents, "the schema has no queries", remedy)])
    if errors := validate_schema(types):
        raise SchemaFaults(of_errors(errors))
    for scalar in (*known.type_map.values(), *types.type_map.values()):
        if isinstance(scalar, GraphQLScalarType) and not is_specified_scalar_type(scalar):
            (big_int if scalar.name == big_int.NAME else json_scalars).bind(scalar)
    binder = _Binder(known, types)
    bound = binder.bound()
    faults = [*binder.faults] or [*check(bound, upstreams)]
    if faults:
        raise SchemaFaults(sorted(faults, key=lambda one: (one.file, one.line, one.column)))
    return bound


def _at_begin(documents: Sequence[SdlDocument], message: str, remedy: str) -> SchemaFault:
    return SchemaFault(message=message, remedy=remedy, file=documents[0].name if documents else "")


def _parsed(documents: Sequence[SdlDocument]) -> tuple[DocumentNode, DocumentNode]:
    """The definitions of all documents, and those that every schema has."""
    definitions: list[Any] = []
    faults: list[SchemaFault] = []
    for one in documents:
        try:
            definitions += parse(Source(one.text, one.name), max_tokens=MOST_TOKENS).definitions
        except GraphQLError as error:
            faults += of_errors([error])
        except RecursionError:
            faults.append(SchemaFault(message="the types are nested too deeply", file=one.name))
    if faults:
        raise SchemaFaults(faults)
    for root in ("Query", "Mutation", "Subscription"):
        _define(definitions, root)
    declared = parse(Source(directives.DECLARED, "directives"))
    return DocumentNode(definitions=tuple(definitions)), declared


def _declared_again(written: DocumentNode, declared: DocumentNode) -> Iterator[SchemaFault]:
    """The faults of definitions that every schema has anyway."""
    known = {(type(one) is DirectiveDefinitionNode, one.name.value) for one in _named(declared)}
    for one in _named(written):
        directive, name = type(one) is DirectiveDefinitionNode, one.name.value
        if (directive, name) in known:
            word = f"@{name}" if directive else f"'{name}'"
            yield at(one, f"{word} is declared for every schema", "remove this declaration")


def _named(document: DocumentNode) -> Iterator[DirectiveDefinitionNode | TypeDefinitionNode]:
    return (
        one for one in document.definitions if isinstance(one, DirectiveDefinitionNode | TypeDefinitionNode)
    )


def _define(definitions: list[Any], root: str) -> None:
    """Let the first extension of a root define it, if nothing else does: each document may extend it."""
    found = [number for number, one in enumerate(definitions) if _is_named(one, root)]
    if found and all(isinstance(definitions[number], ObjectTypeExtensionNode) for number in found):
        first = definitions[found[0]]
        definitions[found[0]] = ObjectTypeDefinitionNode(
            name=first.name,
            interfaces=first.interfaces,
            directives=first.directives,
            fields=first.fields,
            loc=first.loc,
        )


def _is_named(definition: Any, name: str) -> bool:
    kinds = ObjectTypeDefinitionNode | ObjectTypeExtensionNode
    return isinstance(definition, kinds) and definition.name.value == name


class _Undirected(Visitor):
    """Removes the directives that bind fields."""

    def enter_directive(self, node: DirectiveNode, *_args: Any) -> Any:
        return REMOVE if node.name.value in directives.NAMES else None


class _UsedTypes(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_named_type(self, node: Any, *_args: Any) -> None:
        self.names.add(node.name.value)


def _public(written: DocumentNode, declared: DocumentNode) -> DocumentNode:
    """The schema that clients see: without our directives, and with the shared scalars that it uses."""
    plain = visit(written, _Undirected())
    used = _UsedTypes()
    visit(plain, used)
    shared = [
        one
        for one in declared.definitions
        if isinstance(one, ScalarTypeDefinitionNode) and one.name.value in used.names
    ]
    incremental = parse(Source(directives.INCREMENTAL, "directives"))
    return DocumentNode(definitions=(*incremental.definitions, *shared, *plain.definitions))


class _Binder:
    """Reads the directives of all types and fields. It goes on after a fault, to report all of them."""

    def __init__(self, known: GraphQLSchema, types: GraphQLSchema) -> None:
        self.faults: list[SchemaFault] = []
        self._known = known
        self._types = types

    def bound(self) -> BoundSchema:
        """Return the schema. It means nothing if there are faults."""
        calls: dict[FieldName, Rest] = {}
        streams: dict[FieldName, Rest] = {}
        values: dict[FieldName, Pick] = {}
        allowed: dict[FieldName, tuple[Auth, ...]] = {}
        weights: dict[FieldName, int] = {}
        sizes: dict[FieldName, ListSize] = {}
        for kind in self._known.type_map.values():
            if not isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) or kind.name.startswith("__"):
                continue
            of_type = tuple(self._auths(*_nodes(kind)))
            for name, one in kind.fields.items():
                node, field = one.ast_node, (kind.name, name)
                if node is None:
                    continue
                if (call := self._read("rest", node, reading.rest, field)) is not None:
                    calls[field] = call
                if (stream := self._read("sse", node, reading.sse, field)) is not None:
                    streams[field] = stream
                if (value := self._read("value", node, reading.value)) is not None:
                    values[field] = value
                if (weight := self._read("cost", node, reading.weight)) is not None:
                    weights[field] = weight
                if (size := self._read("listSize", node, reading.list_size)) is not None:
                    sizes[field] = size
                if auths := (*of_type, *self._auths(node)):
                    allowed[field] = auths
        self._name_inputs()
        return BoundSchema(
            types=self._types,
            calls={field: self._as_sent(one) for field, one in calls.items()},
            streams={field: self._as_sent(one) for field, one in streams.items()},
            values=values,
            allowed=allowed,
            weights=weights,
            sizes=sizes,
            discriminators=dict(self._discriminators()),
        )

    def _name_inputs(self) -> None:
        """Give input fields the names of the members that are sent."""
        for name, kind in self._types.type_map.items():
            known = self._known.type_map[name]
            if isinstance(kind, GraphQLInputObjectType) and isinstance(known, GraphQLInputObjectType):
                for field, one in kind.fields.items():
                    one.out_name = self._read("value", known.fields[field].ast_node, reading.member) or field

    def _as_sent(self, call: Rest) -> Rest:
        """Return a call that finds the values of arguments where inputs have names of their own for them."""
        kind = self._types.type_map[call.field[0]]
        assert isinstance(kind, GraphQLObjectType | GraphQLInterfaceType), "only these have fields"
        arguments = kind.fields[call.field[1]].args
        steps = {one.steps for one in call.all_sources if one.kind == "arg" and len(one.steps) > 1}
        renamed = {one: found for one in steps if (found := _sent(one, arguments)) != one}
        return replace(call, sent=renamed) if renamed else call

    def _auths(self, *nodes: Node) -> Iterator[Auth]:
        for node in nodes:
            if (auth := self._read("auth", node, reading.auth)) is not None:
                yield auth

    def _discriminators(self) -> Iterator[tuple[str, Discriminator]]:
        for kind in self._known.type_map.values():
            if isinstance(kind, GraphQLInterfaceType | GraphQLUnionType):
                for node in _nodes(kind):
                    if (one := self._read("discriminator", node, reading.discriminator)) is not None:
                        yield kind.name, one

    def _read(self, name: str, node: Any, reader: Any, *more: Any) -> Any:
        """What `reader` makes of a directive of a node; None without it, or after a fault."""
        directive = self._known.get_directive(name)
        assert directive is not None, "every schema declares it"
        place = next((one for one in node.directives or () if one.name.value == name), None)
        if place is None:
            return None
        try:
            return reader(get_directive_values(directive, node), place, *more)
        except GraphQLError as error:
            self.faults += of_errors([error])
        except Mistake as mistake:
            value = None if mistake.value is ... else str(mistake.value)
            where = ".".join(map(str, mistake.path))
            message = f"@{name}: {where}: {mistake.message}" if where else f"@{name}: {mistake.message}"
            self.faults.append(at(place, message, mistake.remedy, value))
        return None


def _sent(steps: tuple[str, ...], arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the steps of an argument with the names of members that are sent."""
    found = arguments.get(steps[0])
    result = [steps[0]]
    for step in steps[1:]:
        inner = get_named_type(found.type) if found is not None else None
        found = inner.fields.get(step) if isinstance(inner, GraphQLInputObjectType) else None
        result.append(step if found is None else found.out_name or step)
    return tuple(result)


def _nodes(kind: Any) -> tuple[Node, ...]:
    return tuple(one for one in (kind.ast_node, *kind.extension_ast_nodes) if one is not None)
