"""An executor that takes the members of JSON objects without the steps that only other fields need.

Most fields of an answer are members of an object of the upstream: no resolver of ours runs, and nothing is awaited. For an
object all of whose selected fields are such leaves, the executor of graphql-core would build a path, the information for a
resolver and its arguments for each of them.
"""

from __future__ import annotations

from typing import Any

from graphql import (
    GraphQLField,
    GraphQLLeafType,
    GraphQLObjectType,
    Undefined,
    is_leaf_type,
    is_non_null_type,
)
from graphql.execution.incremental.incremental_executor import IncrementalExecutor

LEAVES = "xds.leaves"
"""The extension of an object type that has its fields which are members and leaves: their types by name."""
Leaves = dict[str, GraphQLLeafType]


def leaf_of(field: GraphQLField) -> GraphQLLeafType | None:
    """The type of a field that is a leaf, with or without a `!`, and has no arguments. None for other fields."""
    kind = field.type.of_type if is_non_null_type(field.type) else field.type
    return kind if is_leaf_type(kind) and not field.args else None


class MemberExecutor(IncrementalExecutor):
    """Executes objects of plain members at once, and everything else as graphql-core does."""

    def execute_fields(
        self, parent_type: GraphQLObjectType, source_value: Any, path: Any, grouped_field_set: Any, *rest: Any
    ) -> Any:
        """Execute the fields of an object (GraphQL, section 6.3.3)."""
        leaves: Leaves | None = parent_type.extensions.get(LEAVES)
        if leaves and type(source_value) is dict:
            values = _members(leaves, parent_type, source_value, grouped_field_set)
            if values is not None:
                return values
        return super().execute_fields(parent_type, source_value, path, grouped_field_set, *rest)


def _members(
    leaves: Leaves, parent: GraphQLObjectType, source: dict[str, Any], grouped: Any
) -> dict[str, Any] | None:
    """The values of an object, or None if a field is no plain member or has no right value: then the library reports it."""
    values: dict[str, Any] = {}
    for response_name, details in grouped.items():
        name = details[0].node.name.value
        kind = leaves.get(name)
        if kind is None:
            return None
        value = source.get(name)
        if value is None:
            if is_non_null_type(parent.fields[name].type):
                return None
        else:
            try:
                value = kind.coerce_output_value(value)
            except Exception:  # noqa: BLE001 - whatever it is, it happens again where the library reports it
                return None
            if value is None or value is Undefined:
                return None
        values[response_name] = value
    return values
