"""Operations that were parsed, checked against the limits and validated, kept for the next request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DirectiveNode,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    Visitor,
    parse,
    validate,
    visit,
)

from filters.graphql import errors
from filters.graphql.cost import Cost, defaults_of
from filters.graphql.errors import refused
from filters.graphql.measure import LONGEST_CHAIN, measure
from filters.graphql.schema import BoundSchema
from filters.graphql.settings import GraphqlLimits

MOST_ERRORS = 5
"""Errors of validation that a client gets."""
MOST_KEPT = 200_000
"""Characters of the documents that are kept. A parsed document takes some 160 bytes for each, so this is some 30 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a validated document. `document` has only what this operation needs to be executed."""

    schema: BoundSchema
    document: DocumentNode
    node: OperationDefinitionNode
    fragments: Mapping[str, FragmentDefinitionNode]
    list_size: int
    most_cost: int
    most_depth: int
    """Levels of the values of variables."""
    fixed_cost: int | None
    incremental: bool
    """True if it has `@defer` or `@stream`."""

    @property
    def kind(self) -> OperationType:
        """Whether it is a query or a mutation."""
        return self.node.operation

    def declared(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The variables that it declares, of those that were sent; others are not looked at. Raises Refused if they are too deep."""
        names = [one.variable.name.value for one in self.node.variable_definitions or ()]
        found = {name: variables[name] for name in names if name in variables}
        if _is_deeper(found, self.most_depth):
            raise refused(errors.TOO_DEEP, f"The variables have more than {self.most_depth} levels.")
        return found

    def cost(self, variables: Mapping[str, Any]) -> int:
        """The cost with the values of variables. Raises Refused if it is too high."""
        cost = self.fixed_cost if self.fixed_cost is not None else self._cost(variables)
        if cost > self.most_cost:
            text = f"The operation costs {cost}, and at most {self.most_cost} is allowed."
            raise refused(errors.COST_TOO_HIGH, text, cost=cost, limit=self.most_cost)
        return cost

    def _cost(self, variables: Mapping[str, Any]) -> int:
        given = defaults_of(self.node, variables)
        return Cost(self.schema, self.fragments, given, self.list_size).of(self.node)


class Operations:
    """Prepares the operations of one schema. Those used last, of `kept` characters, need no second preparation."""

    def __init__(
        self,
        schema: BoundSchema,
        limits: GraphqlLimits,
        *,
        introspection: bool = False,
        suggestions: bool = False,
        kept: int = MOST_KEPT,
    ) -> None:
        self.schema = schema
        self._limits = limits
        self._introspection = introspection
        self._suggestions = suggestions
        self._most = kept
        self._size = 0
        self._kept: OrderedDict[tuple[str, str | None], Operation] = OrderedDict()

    def prepare(self, text: str, name: str | None = None) -> Operation:
        """The operation of a document; `name` chooses one of several. Raises Refused."""
        key = (text, name)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        operation = self._prepared(text, name)
        self._kept[key] = operation
        self._size += len(text)
        while self._size > self._most:
            (oldest, _), _ = self._kept.popitem(last=False)
            self._size -= len(oldest)
        return operation

    def check(self, text: str) -> None:
        """Check a document and all of its operations, but not their cost. Raises Refused."""
        self._validate(self._parsed(text))

    def _validate(self, document: DocumentNode) -> None:
        self._check_size(document)
        found = validate(
            self.schema.types, document, max_errors=MOST_ERRORS, hide_suggestions=not self._suggestions
        )
        if found:
            raise errors.coded(found[:MOST_ERRORS], errors.VALIDATION_FAILED)

    def _prepared(self, text: str, name: str | None) -> Operation:
        document = self._parsed(text)
        node = _chosen(document, name)
        self._validate(document)
        fragments = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        sliced = any(size.arguments for size in self.schema.sizes.values())
        fixed = None if sliced else Cost(self.schema, fragments, {}, self._limits.list_size).of(node)
        return Operation(
            schema=self.schema,
            document=DocumentNode(definitions=(node, *fragments.values())),
            node=node,
            fragments=fragments,
            list_size=self._limits.list_size,
            most_cost=self._limits.cost,
            most_depth=self._limits.variables_depth,
            fixed_cost=fixed,
            incremental=_is_incremental(document),
        )

    def _parsed(self, text: str) -> DocumentNode:
        limits = self._limits
        if len(text) > limits.document or len(text.encode("utf-8", "replace")) > limits.document:
            message = f"The document is larger than {limits.document} bytes."
            raise refused(errors.DOCUMENT_TOO_LARGE, message, limit=limits.document)
        try:
            return parse(text, max_tokens=limits.tokens)
        except GraphQLSyntaxError as error:
            if "more than" in error.message and "tokens" in error.message:
                message = f"The document has more than {limits.tokens} tokens."
                raise refused(errors.TOO_MANY_TOKENS, message, limit=limits.tokens) from None
            code = errors.TOO_DEEP if "nested too deep" in error.message else errors.PARSE_FAILED
            raise errors.coded([error], code) from None

    def _check_size(self, document: DocumentNode) -> None:
        limits = self._limits
        for one in document.definitions:
            if not isinstance(one, OperationDefinitionNode):
                continue
            found = measure(document, one)
            if found.depth > limits.depth:
                message = f"The operation has {found.depth} levels of fields, and at most {limits.depth} are allowed."
                raise refused(errors.TOO_DEEP, message, [one], limit=limits.depth)
            if found.chain > LONGEST_CHAIN:
                raise refused(errors.TOO_DEEP, f"More than {LONGEST_CHAIN} fragments use each other.", [one])
            if found.aliases > limits.aliases:
                message = (
                    f"The operation has {found.aliases} aliases, and at most {limits.aliases} are allowed."
                )
                raise refused(errors.TOO_MANY_ALIASES, message, [one], limit=limits.aliases)
            if found.introspects and not self._introspection:
                raise refused(errors.INTROSPECTION_DISABLED, "Introspection is not allowed.", [one])


def _is_deeper(value: Any, most: int) -> bool:
    """True if a value has more levels of lists and objects."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


class _Directives(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_args: object) -> None:
        self.names.add(node.name.value)


def _is_incremental(document: DocumentNode) -> bool:
    found = _Directives()
    visit(document, found)
    return not found.names.isdisjoint(("defer", "stream"))


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    found = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
    if name is None:
        if len(found) == 1:
            return found[0]
        text = (
            "The document has no operation."
            if not found
            else "Send operationName: there are several operations."
        )
        raise refused(errors.NO_OPERATION, text)
    for one in found:
        if one.name is not None and one.name.value == name:
            return one
    raise refused(errors.NO_OPERATION, "The document has no operation with this name.")
