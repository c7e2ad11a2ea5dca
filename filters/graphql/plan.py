"""The calls of an operation before anything runs: which, in which order, and how many at most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    FieldNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    InlineFragmentNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

from filters.graphql.cost import Cost, arguments_of, defaults_of
from filters.graphql.directives import Rest
from filters.graphql.operations import Operation
from filters.graphql.request_context import RequestContext
from filters.graphql.templates import MissingValue, UnusableValue, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """Calls for the fields at one place of an operation, in which ``[]`` stands for each element of a list.

    Calls of one `step` are made at the same time, behind those of the step before. There are at most `most` of them; `keys` is
    the most keys of a batch, 0 without one. `equal_to` is the place of a call that is the same, so that none is made here.
    """

    step: int
    place: str
    upstream: str
    method: str
    path: str
    most: int
    keys: int = 0
    equal_to: str = ""

    def __str__(self) -> str:
        line = f"{self.step}. {self.place}: {self.method} {self.upstream} {self.path}"
        if self.equal_to:
            return f"{line} (equal to that of {self.equal_to}: none)"
        if self.keys:
            return f"{line} (at most {self.most}, for up to {self.keys} keys each)"
        return f"{line} (1 call)" if self.most == 1 else f"{line} (at most {self.most})"


def plan(operation: Operation, variables: Mapping[str, Any]) -> list[PlannedCall]:
    """The calls of an operation, in the order of their steps."""
    return sorted(_Planner(operation, variables).calls(), key=lambda one: one.step)


@dataclass(slots=True)
class _Planner:
    operation: Operation
    variables: Mapping[str, Any]
    _known: dict[tuple[str, str, str, float | None], str] = field(default_factory=dict)
    _last: int = 0

    def calls(self) -> Iterator[PlannedCall]:
        self.variables = defaults_of(self.operation.node, self.variables)
        root = self.operation.schema.types.get_root_type(self.operation.kind)
        if root is not None:
            yield from self._selections(self.operation.node.selection_set, root, "", 0, 1)

    def _selections(
        self, selections: SelectionSetNode, parent: GraphQLNamedType, place: str, step: int, times: int
    ) -> Iterator[PlannedCall]:
        for one in selections.selections:
            if isinstance(one, FieldNode):
                yield from self._field(one, parent, place, step, times)
            elif isinstance(one, InlineFragmentNode):
                condition = one.type_condition
                inner = (
                    self.operation.schema.types.get_type(condition.name.value)
                    if condition is not None
                    else parent
                )
                yield from self._selections(one.selection_set, inner or parent, place, step, times)
            elif isinstance(one, FragmentSpreadNode):
                fragment = self.operation.fragments[one.name.value]
                inner = self.operation.schema.types.get_type(fragment.type_condition.name.value)
                assert inner is not None, "the operation is valid"
                yield from self._selections(fragment.selection_set, inner, place, step, times)

    def _field(
        self, node: FieldNode, parent: GraphQLNamedType, place: str, step: int, times: int
    ) -> Iterator[PlannedCall]:
        fields: Mapping[str, GraphQLField] = getattr(parent, "fields", {})
        declared = fields.get(node.name.value)
        if declared is None:
            return
        name = node.alias.value if node.alias is not None else node.name.value
        here = f"{place}.{name}" if place else name
        possible = self.operation.schema.calls_of(parent, node.name.value)
        if possible:
            serial = not place and self.operation.kind is OperationType.MUTATION
            step = (self._last if serial else step) + 1  # mutations wait for all calls of those before
            self._last = max(self._last, step)
            for rest in possible:
                yield self._planned(rest, node, declared, here, step, times)
        if is_list_type(get_nullable_type(declared.type)):
            here += "[]"
            times *= self._size(node, parent, declared)
        if node.selection_set is None:
            return
        for one in self._selections(node.selection_set, get_named_type(declared.type), here, step, times):
            self._last = max(self._last, one.step)
            yield one

    def _size(self, node: FieldNode, parent: GraphQLNamedType, declared: GraphQLField) -> int:
        cost = Cost(self.operation.schema, self.operation.fragments, self.variables, self.operation.list_size)
        return cost.size(node, parent.name, declared)

    def _planned(
        self, rest: Rest, node: FieldNode, declared: GraphQLField, place: str, step: int, times: int
    ) -> PlannedCall:
        if rest.batch is not None and times > 1:
            return PlannedCall(
                step=step,
                place=place,
                upstream=rest.upstream,
                method=rest.batch.method,
                path=rest.batch.path.text,
                most=math.ceil(times / rest.batch.size),
                keys=rest.batch.size,
            )
        path, complete = _rendered(rest, arguments_of(node, declared, self.variables))
        if not rest.safe:
            self._known.clear()  # what is read behind it is read again
        key = (rest.upstream, rest.method, path, rest.timeout)
        equal = self._known.get(key, "") if rest.safe and complete and not rest.headers else ""
        if rest.safe:
            self._known.setdefault(key, place)
        most = 1 if complete and rest.safe else times
        return PlannedCall(
            step=step,
            place=place,
            upstream=rest.upstream,
            method=rest.method,
            path=path,
            most=0 if equal else most,
            equal_to=equal,
        )


def _rendered(rest: Rest, arguments: Mapping[str, Any]) -> tuple[str, bool]:
    """The path with the arguments, and whether it is complete. It is the template if it depends on anything else."""
    path = rest.path
    if any(one.kind != "arg" for one in path.sources):
        return path.text, False
    try:
        return path.render(Values(arguments, None, RequestContext(), sent=rest.sent)), True
    except (MissingValue, UnusableValue):
        return path.text, False
