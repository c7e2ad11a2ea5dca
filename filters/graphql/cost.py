"""What an operation costs: the weights of its fields, times the sizes of their lists.

The directives `@cost` and `@listSize` are those of https://ibm.github.io/graphql-specs/cost-spec.html, with default
weights of 1 for objects and 0 for scalars. A field with a call weighs at least 1, because its call is made even if nothing else
counts. A field that is written twice counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
    value_from_ast_untyped,
)

if TYPE_CHECKING:
    from filters.graphql.schema import BoundSchema

Fragments = Mapping[str, FragmentDefinitionNode]


def arguments_of(node: FieldNode, field: GraphQLField, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a field as they were sent, with the defaults of the schema."""
    defaults = {
        name: value_from_ast_untyped(one.ast_node.default_value)
        for name, one in field.args.items()
        if one.ast_node is not None and one.ast_node.default_value is not None
    }
    sent = {
        one.name.value: value_from_ast_untyped(one.value, dict(variables)) for one in node.arguments or ()
    }
    return {**dict.fromkeys(field.args), **defaults, **sent}


def defaults_of(operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a request, with the defaults of the operation."""
    found = {
        one.variable.name.value: value_from_ast_untyped(one.default_value)
        for one in operation.variable_definitions or ()
        if one.default_value is not None
    }
    return found | dict(variables)


class Cost:
    """Computes the cost of one validated operation."""

    def __init__(
        self, schema: BoundSchema, fragments: Fragments, variables: Mapping[str, Any], list_size: int
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._variables = variables
        self._list_size = list_size
        self._known: dict[str, int] = {}

    def of(self, operation: OperationDefinitionNode) -> int:
        """The cost of an operation."""
        root = self._schema.types.get_root_type(operation.operation)
        return self._selections(operation.selection_set, root) if root is not None else 0

    def _selections(self, selections: SelectionSetNode, parent: GraphQLNamedType) -> int:
        total = 0
        for one in selections.selections:
            if isinstance(one, FieldNode):
                total += self._field(one, parent)
            elif isinstance(one, InlineFragmentNode):
                condition = one.type_condition
                inner = self._schema.types.get_type(condition.name.value) if condition is not None else parent
                total += self._selections(one.selection_set, inner or parent)
            elif isinstance(one, FragmentSpreadNode):
                total += self._fragment(one.name.value)
        return total

    def _fragment(self, name: str) -> int:
        if name not in self._known:
            fragment = self._fragments[name]
            kind = self._schema.types.get_type(fragment.type_condition.name.value)
            assert kind is not None, "the operation is valid"
            self._known[name] = self._selections(fragment.selection_set, kind)
        return self._known[name]

    def _field(self, node: FieldNode, parent: GraphQLNamedType) -> int:
        name = node.name.value
        fields: Mapping[str, GraphQLField] = getattr(parent, "fields", {})
        field = fields.get(name)
        if field is None:
            return 0  # __typename, __schema and __type
        kind = get_named_type(field.type)
        own = self._schema.weights.get((parent.name, name), 1 if is_composite_type(kind) else 0)
        weight = own
        if node.selection_set is not None:
            weight += self._selections(node.selection_set, kind)
        if weight and is_list_type(get_nullable_type(field.type)):
            weight *= self.size(node, parent.name, field)
        return weight if own or not self._schema.calls_of(parent, name) else weight + 1

    def size(self, node: FieldNode, parent: str, field: GraphQLField) -> int:
        """The elements that the list of a field is assumed to have."""
        size = self._schema.sizes.get((parent, node.name.value))
        if size is None:
            return self._list_size
        return size.of(arguments_of(node, field, self._variables), self._list_size)
