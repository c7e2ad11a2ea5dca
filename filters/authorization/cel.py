"""CEL: conditions as a person writes them, parsed into what Envoy evaluates (the language of cel-spec, langdef.md).

Envoy evaluates no macros but `has`: loops over lists are for the policy server.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import re2
from google.api.expr.v1alpha1 import syntax_pb2 as pb
from google.protobuf.message import DecodeError

from filters.language import Mistake
from filters.language.problems import did_you_mean

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>[rR]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>0x[0-9a-fA-F]+|\d+)(?P<unsigned>[uU]?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>\|\||&&|==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE,
)
_LEVELS: tuple[Mapping[str, str], ...] = (
    {"||": "_||_"},
    {"&&": "_&&_"},
    {"<": "_<_", "<=": "_<=_", ">": "_>_", ">=": "_>=_", "==": "_==_", "!=": "_!=_", "in": "@in"},
    {"+": "_+_", "-": "_-_"},
    {"*": "_*_", "/": "_/_", "%": "_%_"},
)
"""Binary operators from weak to strong, with the functions that they call."""
METHODS = frozenset(["contains", "startsWith", "endsWith", "matches", "size"])
FUNCTIONS = frozenset(["size", "int", "uint", "double", "timestamp", "duration"])
_QUIET = re2.Options()
_QUIET.log_errors = False
LONGEST = 2000
DEEPEST = 24
"""Nested expressions: Envoy reads messages that are at most 100 deep, and each expression is two, and what is around them in a static bootstrap is some 40."""

Expr = Any
"""A google.api.expr.v1alpha1.Expr; its package comes without types."""
Names = Mapping[str, Callable[[], Expr]]
"""What a variable stands for."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str, names: Names) -> Expr:
    """The expression. Raises Mistake, which says the column, for what is no CEL or knows no such name."""
    if len(text) > LONGEST:
        raise Mistake(f"a condition has at most {LONGEST} letters", "split it, or use ext_authz")
    parser = _Parser(text, _tokens(text), names)
    try:
        result = parser.expression()
    except DecodeError:  # from protobuf itself, for a message of more than 100 levels
        raise _too_deep() from None
    if parser.here.kind != "end":
        parser.fail(f"'{parser.here.text}' is not expected here")
    if _depth(result) > DEEPEST:
        raise _too_deep()
    for number, node in enumerate(_nodes(result), 1):
        node.id = number
    return result


def _too_deep() -> Mistake:
    return Mistake("the condition is nested too deeply", "write it flatter, or use ext_authz")


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Mistake(f"column {at + 1}: '{text[at]}' is not CEL", "see cel.dev for the language")
        kind = match.lastgroup or ""
        if match["int"] is not None:
            kind = "uint" if match["unsigned"] else "int"
        if kind != "space":
            tokens.append(_Token(kind, match[0], at))
        at = match.end()
    return [*tokens, _Token("end", "", at)]


def call(function: str, *arguments: Expr, target: Expr | None = None) -> Expr:
    """A call of a function, or of a method of `target`."""
    return pb.Expr(call_expr=pb.Expr.Call(target=target, function=function, args=arguments))


def select(operand: Expr, *path: str) -> Expr:
    """A field, through all of `path`."""
    for name in path:
        operand = pb.Expr(select_expr=pb.Expr.Select(operand=operand, field=name))
    return operand


def variable(name: str) -> Expr:
    """One of Envoy's attributes."""
    return pb.Expr(ident_expr=pb.Expr.Ident(name=name))


def literal(value: str) -> Expr:
    """A string."""
    return pb.Expr(const_expr=pb.Constant(string_value=value))


@dataclass(slots=True)
class _Parser:
    text: str
    tokens: list[_Token]
    names: Names
    at: int = 0
    depth: int = field(default=0)

    @property
    def here(self) -> _Token:
        return self.tokens[self.at]

    def fail(self, message: str, remedy: str = "") -> NoReturn:
        raise Mistake(f"column {self.here.at + 1}: {message}", remedy or "see cel.dev for the language")

    def take(self, *texts: str) -> str | None:
        """The next token's text, if it is one of these."""
        token = self.here
        if token.kind in ("sign", "name") and token.text in texts:
            self.at += 1
            return token.text
        return None

    def need(self, text: str) -> None:
        if self.take(text) is None:
            found = f"'{self.here.text}'" if self.here.text else "the end"
            self.fail(f"'{text}' is expected, not {found}")

    def expression(self) -> Expr:
        self.depth += 1
        if self.depth > DEEPEST:
            self.fail("this is nested too deeply")
        result = self.binary(0)
        if self.take("?"):
            yes = self.binary(0)
            self.need(":")
            result = call("_?_:_", result, yes, self.expression())
        self.depth -= 1
        return result

    def binary(self, level: int) -> Expr:
        if level == len(_LEVELS):
            return self.unary()
        result = self.binary(level + 1)
        if level < 2:
            ((chained, function),) = _LEVELS[level].items()
            operands = [result]
            while self.take(chained):
                operands.append(self.binary(level + 1))
            return _balanced(function, operands)
        while sign := self.take(*_LEVELS[level]):
            other = self.binary(level + 1)
            if sign == "+" and any(_is_text(one) or one.HasField("list_expr") for one in (result, other)):
                self.fail("Envoy joins no texts and no lists", "compare the parts one by one")
            result = call(_LEVELS[level][sign], result, other)
        return result

    def unary(self) -> Expr:
        signs = []
        while sign := self.take("!", "-"):
            signs.append(sign)
        result = self.member()
        for sign in reversed(signs):
            result = call(f"{sign}_", result)
        return result

    def member(self) -> Expr:
        result = self.primary()
        while sign := self.take(".", "["):
            if sign == "[":
                result = call("_[_]", result, self.expression())
                self.need("]")
                continue
            name = self.name("a field's name")
            if self.take("("):
                if name not in METHODS:
                    self.fail(f"Envoy has no method '{name}'", did_you_mean(name, METHODS))
                result = call(name, *self.method_arguments(name), target=result)
            else:
                result = select(result, name)
        return result

    def method_arguments(self, name: str) -> list[Expr]:
        """The arguments of a method: `size` has none, all others have a text, and RE2 must take that of `matches`."""
        at = self.at
        found = self.arguments(")")
        if len(found) != (0 if name == "size" else 1):
            self.at = at
            self.fail(f"{name}() takes {'nothing' if name == 'size' else 'one text'}")
        if name == "matches" and _is_text(found[0]):
            try:
                re2.compile(found[0].const_expr.string_value, _QUIET)
            except re2.error:
                self.at = at
                self.fail("RE2 does not take this expression")
        return found

    def name(self, what: str) -> str:
        if self.here.kind != "name":
            self.fail(f"{what} is expected")
        self.at += 1
        return self.tokens[self.at - 1].text

    def arguments(self, end: str) -> list[Expr]:
        result: list[Expr] = []
        while self.take(end) is None:
            if result:
                self.need(",")
            result.append(self.expression())
        return result

    def primary(self) -> Expr:
        token = self.here
        if token.kind in ("string", "double", "int", "uint"):
            self.at += 1
            return pb.Expr(const_expr=_constant(token))
        if self.take("("):
            result = self.expression()
            self.need(")")
            return result
        if self.take("["):
            return pb.Expr(list_expr=pb.Expr.CreateList(elements=self.arguments("]")))
        name = self.name("a value")
        if name in ("true", "false"):
            return pb.Expr(const_expr=pb.Constant(bool_value=name == "true"))
        if name == "null":
            return pb.Expr(const_expr=pb.Constant(null_value=0))
        if self.take("("):
            return self.function(name)
        if name not in self.names:
            self.at -= 1
            self.fail(f"there is no '{name}'", did_you_mean(name, self.names))
        return self.names[name]()

    def function(self, name: str) -> Expr:
        if name == "has":
            (asked,) = self.arguments(")")[:1] or [pb.Expr()]
            if not asked.HasField("select_expr"):
                self.fail("has() takes a field, such as has(claims.department)")
            asked.select_expr.test_only = True
            return asked
        if name not in FUNCTIONS:
            self.fail(f"Envoy has no function '{name}'", did_you_mean(name, FUNCTIONS))
        return call(name, *self.arguments(")"))


def _is_text(node: Expr) -> bool:
    return bool(node.HasField("const_expr") and node.const_expr.HasField("string_value"))


def _balanced(function: str, operands: list[Expr]) -> Expr:
    """A chain of && or ||, which are associative, as a tree that is not deeper than need be."""
    if len(operands) == 1:
        return operands[0]
    half = (len(operands) + 1) // 2
    return call(function, _balanced(function, operands[:half]), _balanced(function, operands[half:]))


def _constant(token: _Token) -> pb.Constant:
    match token.kind:
        case "double":
            return pb.Constant(double_value=float(token.text))
        case "uint":
            return pb.Constant(uint64_value=_whole(token, token.text[:-1], 2**64 - 1))
        case "int":
            return pb.Constant(int64_value=_whole(token, token.text, 2**63 - 1))
        case _:
            return pb.Constant(string_value=_unquoted(token))


def _whole(token: _Token, digits: str, largest: int) -> int:
    number = int(digits, 0) if len(digits) < 40 else largest + 1
    if number > largest:
        raise Mistake(f"column {token.at + 1}: the number is too large", f"write one of at most {largest}")
    return number


def _unquoted(token: _Token) -> str:
    try:
        value: str = ast.literal_eval(token.text)
        value.encode()
    except (SyntaxError, ValueError):
        raise Mistake(f"column {token.at + 1}: the string is malformed", "mend its escapes") from None
    return value


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
    """The expression and everything in it."""
    found = [expression]
    for one in found:
        found += _inner(one)
    return found
