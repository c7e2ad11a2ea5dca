"""CEL: conditions that a user writes, compiled into the syntax tree that Envoy's RBAC filter evaluates.

The official compiler (https://github.com/cel-expr/cel-python) parses a condition and checks its types. Our own part is
the variables and their types, the part of CEL that Envoy evaluates, and the error messages. The only macro that Envoy
evaluates is `has`. Loops over lists need a policy in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import re2
from cel.expr import checked_pb2, syntax_pb2
from google.api.expr.v1alpha1 import syntax_pb2 as pb
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from filters.authorization.cel_mistakes import (
    ERROR,
    FUNCTIONS,
    METHODS,
    NAME,
    NO_FIELD,
    NUMBERS,
    PRESENT,
    at,
    explained,
    offset_of,
    too_deep,
    unknown_call,
)
from filters.authorization.cel_types import Type, environment
from filters.language import Mistake
from filters.language.problems import did_you_mean

JOINS = frozenset(["add_string", "add_bytes", "add_list"])
"""Overloads of `+` that Envoy does not have."""
LONGEST = 2000
DEEPEST = 24
"""Nested expressions. Envoy reads messages that are at most 100 deep. Each expression takes two levels, and a static
bootstrap takes some 40 around them."""
LARGEST_PROGRAM = 100
"""Instructions of the largest regular expression that Envoy evaluates in `matches`. Its runtime settings do not
change this limit."""
_QUIET = re2.Options()
_QUIET.log_errors = False
Expr = Any
"""A google.api.expr.v1alpha1.Expr. Its package has no type annotations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable of conditions: its type, and the expression that replaces it for Envoy.

    A variable that may be `absent` can be the argument of `has()`.
    """

    type: Type
    expression: Callable[[], Expr]
    absent: bool = False


def call(function: str, *arguments: Expr) -> Expr:
    """A call of a function."""
    return pb.Expr(call_expr=pb.Expr.Call(function=function, args=arguments))


def select(operand: Expr, *path: str) -> Expr:
    """A nested field: `path` has the names of the fields."""
    for name in path:
        operand = pb.Expr(select_expr=pb.Expr.Select(operand=operand, field=name))
    return operand


def variable(name: str) -> Expr:
    """One of Envoy's attributes."""
    return pb.Expr(ident_expr=pb.Expr.Ident(name=name))


def literal(value: str) -> Expr:
    """A string."""
    return pb.Expr(const_expr=pb.Constant(string_value=value))


class Conditions:
    """Compiles conditions over the given variables."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = variables

    def parse(self, text: str) -> Expr:
        """The expression of a condition. Raises Mistake, with the column, for invalid CEL or CEL that Envoy lacks."""
        if len(text) > LONGEST:
            raise Mistake(f"a condition has at most {LONGEST} letters", "split it, or use ext_authz")
        if (found := re.search(r"[\ud800-\udfff\0]", text)) is not None:
            raise at(text, found.start(), "this is no letter", "remove it")
        if PRESENT in text:
            raise at(text, text.index(PRESENT), f"there is no '{PRESENT}'", self._nearest(PRESENT))
        text, compiled = self._compiled(text)
        result = pb.Expr.FromString(compiled.expr.SerializeToString())
        for node in _nodes(result):
            self._put_in(node, _Node(node, text, compiled))
        if _depth(result) > DEEPEST:
            raise too_deep()
        for number, node in enumerate(_nodes(result), 1):
            node.id = number
        return result

    @property
    def _types(self) -> Mapping[str, Type]:
        return {name: one.type for name, one in self._variables.items()}

    @cached_property
    def _environment(self) -> Any:
        return environment({**self._types, PRESENT: "any"})

    def _compiled(self, text: str) -> tuple[str, Any]:
        """The text with `__present.` in each `has(NAME)`, and its CheckedExpr or ParsedExpr. Raises Mistake."""
        try:
            compiled = self._environment.compile(text)
        except RuntimeError as error:
            found = tuple(ERROR.finditer(str(error)))
            others = [one for one in found if NUMBERS.fullmatch(one["message"]) is None]
            if found and not others:
                parsed = _unpacked(self._environment.compile(text, disable_check=True))
                if not self._may_be_true(parsed.expr):
                    raise Mistake("the condition is not true or false", "compare it with a value") from None
                return text, parsed
            return self._compiled(self._mended(text, others, str(error)))
        if (kind := compiled.return_type().name()) not in ("BOOL", "DYN"):
            message = f"the condition is of type {kind.lower()}, and not true or false"
            raise Mistake(message, "compare it with a value")
        return text, _unpacked(compiled)

    def _may_be_true(self, node: Any) -> bool:
        """True if an expression with mixed numbers can be true or false. Both results of a ternary must be."""
        match node.WhichOneof("expr_kind"):
            case "call_expr" if node.call_expr.function == "_?_:_":
                return all(map(self._may_be_true, node.call_expr.args[1:]))
            case "call_expr":
                return node.call_expr.function in _TRUTHS
            case "const_expr":
                return bool(node.const_expr.WhichOneof("constant_kind") == "bool_value")
            case "select_expr" if node.select_expr.test_only:
                return True
            case "ident_expr" | "select_expr":
                name = _dotted(node)
                return not name or self._environment.compile(name).return_type().name() in ("BOOL", "DYN")
        return False

    def _mended(self, text: str, found: Sequence[re.Match[str]], error: str) -> str:
        """The text with one more `__present.`. Raises Mistake if its first error has another cause."""
        if "recursion" in error:
            raise too_deep()
        if not found:
            raise Mistake(error.splitlines()[0], "see cel.dev for the language")
        first = found[0]
        offset = offset_of(text, int(first["line"]), int(first["column"]))
        name = NAME.match(text, offset)
        if first["message"] != NO_FIELD or name is None or not self._may_be_absent(name[0]):
            raise explained(text, offset, first["message"], self._types)
        return f"{text[:offset]}{PRESENT}.{text[offset:]}"

    def _may_be_absent(self, name: str) -> bool:
        return name in self._variables and self._variables[name].absent

    def _put_in(self, node: Expr, source: _Node) -> None:
        """Replace variables by their expressions. Raises Mistake for an expression that Envoy does not evaluate."""
        match node.WhichOneof("expr_kind"):
            case "ident_expr" if node.ident_expr.name != PRESENT:  # the field of PRESENT names the variable
                if node.ident_expr.name not in self._variables:
                    raise source.mistake(
                        f"there is no '{node.ident_expr.name}'", self._nearest(node.ident_expr.name)
                    )
                node.CopyFrom(self._variables[node.ident_expr.name].expression())
            case "select_expr" if node.select_expr.operand.ident_expr.name == PRESENT:
                node.CopyFrom(self._variables[node.select_expr.field].expression())
                node.select_expr.test_only = True
            case "call_expr":
                _check_call(node.call_expr, source)
            case "comprehension_expr":
                raise unknown_call(source.text, source.offset - len(source.word), source.word)
            case "struct_expr":
                raise source.mistake("Envoy makes no mappings", "compare the parts one by one")

    def _nearest(self, name: str) -> str:
        return did_you_mean(name, self._variables)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the syntax tree, with the text of the condition."""

    node: Expr
    text: str
    compiled: Any

    @property
    def offset(self) -> int:
        return int(self.compiled.source_info.positions.get(self.node.id, 0))

    @property
    def word(self) -> str:
        """The name that ends at the node's offset, because the offset of a call is its parenthesis."""
        return re.findall(r"\w*", self.text[: self.offset])[-2] if self.offset else ""

    @property
    def overloads(self) -> frozenset[str]:
        """The functions that a call may mean, by the types of its arguments. Empty if types were not checked."""
        if not isinstance(self.compiled, checked_pb2.CheckedExpr):
            return frozenset()
        return frozenset(self.compiled.reference_map[self.node.id].overload_id)

    def mistake(self, message: str, remedy: str = "") -> Mistake:
        return at(self.text, self.offset, message, remedy)


def _unpacked(compiled: Any) -> Any:
    """The cel.expr.CheckedExpr or ParsedExpr of a compiled expression. Raises Mistake."""
    packed = any_pb2.Any.FromString(compiled.serialize())
    kind = (
        checked_pb2.CheckedExpr
        if packed.TypeName() == checked_pb2.CheckedExpr.DESCRIPTOR.full_name
        else syntax_pb2.ParsedExpr
    )
    try:
        return kind.FromString(packed.value)
    except DecodeError:  # protobuf reads messages that are at most 100 deep
        raise too_deep() from None


def _check_call(call: Any, source: _Node) -> None:
    """Raise Mistake for a call of a function that Envoy does not have."""
    name = call.function
    if name == "_+_" and frozenset() < source.overloads <= JOINS:
        raise source.mistake("Envoy joins no texts and no lists", "compare the parts one by one")
    if not name.isidentifier() or name.startswith("_"):
        return  # an operator
    known = METHODS if call.HasField("target") else FUNCTIONS
    if name not in known:
        raise unknown_call(source.text, source.offset - len(name), name)
    if name == "matches" and call.args[0].const_expr.HasField("string_value"):
        try:
            size = re2.compile(call.args[0].const_expr.string_value, _QUIET).programsize
        except re2.error:
            raise source.mistake("RE2 does not take this expression") from None
        if size > LARGEST_PROGRAM:
            message = f"RE2 makes {size} instructions of this expression, and Envoy evaluates at most {LARGEST_PROGRAM}"
            raise source.mistake(message, "write a shorter one, with fewer repetitions and classes")


def _inner(expression: Expr) -> list[Expr]:
    match expression.WhichOneof("expr_kind"):
        case "select_expr":
            return [expression.select_expr.operand]
        case "list_expr":
            return list(expression.list_expr.elements)
        case "call_expr":
            target = [expression.call_expr.target] if expression.call_expr.HasField("target") else []
            return [*target, *expression.call_expr.args]
        case _:
            return []


def _depth(expression: Expr) -> int:
    level, depth = [expression], 0
    while level:
        level, depth = [inner for one in level for inner in _inner(one)], depth + 1
    return depth


def _nodes(expression: Expr) -> list[Expr]:
    """The expression and all expressions inside it."""
    found = [expression]
    for one in found:
        found += _inner(one)
    return found


_TRUTHS = frozenset(
    [
        "_&&_",
        "_||_",
        "!_",
        "_==_",
        "_!=_",
        "_<_",
        "_<=_",
        "_>_",
        "_>=_",
        "@in",
        "in",
        "startsWith",
        "endsWith",
        "contains",
        "matches",
        "_[_]",
    ]
)
"""Operators and functions of CEL whose result can be true or false."""


def _dotted(node: Any) -> str:
    """The text of a name with dots, such as ``request.method``; empty for a field of anything else."""
    fields: list[str] = []
    while node.WhichOneof("expr_kind") == "select_expr":
        fields.append(node.select_expr.field)
        node = node.select_expr.operand
    if node.WhichOneof("expr_kind") != "ident_expr":
        return ""
    return ".".join([node.ident_expr.name, *reversed(fields)])
