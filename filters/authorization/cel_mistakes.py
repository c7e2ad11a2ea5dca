"""Errors of CEL's compiler as mistakes of this language: the column, the message and a remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping

from filters.authorization.cel_types import Type
from filters.language import Mistake
from filters.language.problems import did_you_mean

METHODS = {"contains": 1, "startsWith": 1, "endsWith": 1, "matches": 1, "size": 0}
"""Methods of a text, a list or a mapping that Envoy evaluates, with the number of their arguments."""
FUNCTIONS = frozenset(["size", "int", "uint", "double", "timestamp", "duration"])
PRESENT = "__present"
"""A mapping of the variables that may be absent, for `has(NAME)`, because CEL's own `has` takes only fields."""

ERROR = re.compile(
    r"ERROR: <input>:(?P<line>-?\d+):(?P<column>-?\d+): (?P<message>.*?)(?: \[[A-Z_]+\])?$", re.MULTILINE
)
NAME = re.compile(r"[A-Za-z_]\w*")
NO_FIELD = "has() argument must be a field selection"
NUMBERS = re.compile(
    r"found no matching overload for '_(?:==|!=|<=?|>=?)_' applied to '\((?:u?int|double), (?:u?int|double)\)'"
)
"""The error for a comparison of numbers of two types. CEL's type check rejects it, and Envoy evaluates it."""
_HAS = "has() takes a field, such as has(claims.department)"
_UNDECLARED = re.compile(r"undeclared reference to '(.+)' \(in container ''\)")
_NO_SUCH_FIELD = re.compile(r"undefined field '(?P<field>.+)' not found in struct '(?P<record>.+)'")
_OVERLOAD = re.compile(r"found no matching overload for '(?P<function>.+)' applied to '\((?P<types>.*)\)'")
_SYNTAX = tuple(
    (re.compile(pattern), ours, remedy)
    for pattern, ours, remedy in (
        (r"Syntax error: mismatched input '<EOF>'", "a value is expected", ""),
        (
            r"Syntax error: (?:mismatched|extraneous) input '(.+?)' expecting",
            r"'\1' is not expected here",
            "",
        ),
        (r"Syntax error: no viable alternative at input '(.+)'", r"'\1' is not expected here", ""),
        (r"Syntax error: missing '(.+)' at '<EOF>'", r"'\1' is expected, not the end", ""),
        (r"Syntax error: missing '(.+)' at '(.+)'", r"'\1' is expected, not '\2'", ""),
        (
            r"Syntax error: token recognition error at: '[rRbB]?[\"']",
            "the string is malformed",
            "end it with its quote, and write r'...' around backslashes",
        ),
        (r"Syntax error: token recognition error at: '(\S+)", r"'\1' is not CEL", ""),
        (r"expression of type '(.+)' cannot be the operand of a select operation", r"a \1 has no fields", ""),
        (r"reserved identifier: (.+)", r"'\1' is a reserved word", "write its name in backquotes"),
        (r"invalid u?int literal", "the number is too large", f"write one of at most {2**63 - 1}"),
    )
)
"""Texts of CEL's parser about syntax, and our own texts."""


def explained(text: str, offset: int, message: str, variables: Mapping[str, Type]) -> Mistake:
    """The mistake for a message of CEL's compiler about the position `offset` of the condition."""
    if found := _UNDECLARED.fullmatch(message):
        name = found[1]
        if text[offset : offset + 1] == "(":
            return unknown_call(text, offset - len(name), name)
        first, _, rest = name.partition(".")
        offset = max(0, offset - len(name.rpartition(".")[0])) if rest else offset
        return at(text, offset, f"there is no '{first}'", did_you_mean(first, variables))
    if found := _NO_SUCH_FIELD.fullmatch(message):
        fields = variables[found["record"]]
        known = did_you_mean(found["field"], fields) if isinstance(fields, Mapping) else ""
        return at(text, offset + 1, f"there is no '{found['record']}.{found['field']}'", known)
    if found := _OVERLOAD.fullmatch(message):
        name = found["function"]
        sign = name if name.isidentifier() and not name.startswith("_") else name.strip("@").replace("_", "")
        types = found["types"].replace("google.protobuf.", "").lower()
        return at(text, offset, f"'{sign}' cannot be applied to ({types})", "use values of the same type")
    if message == NO_FIELD:
        return at(text, offset, _HAS)
    for pattern, ours, remedy in _SYNTAX:
        if found := pattern.match(message):
            return at(text, offset, found.expand(ours), remedy)
    return at(text, offset, message.removeprefix("Syntax error: "))


def unknown_call(text: str, offset: int, name: str) -> Mistake:
    """The mistake for a function or method at `offset` that Envoy does not have, or that takes other arguments."""
    if not text[:offset].rstrip().endswith("."):
        if name in FUNCTIONS:
            return at(text, offset, f"{name}() takes one value")
        if name == "has":
            return at(text, offset, _HAS)
        return at(text, offset, f"Envoy has no function '{name}'", did_you_mean(name, FUNCTIONS))
    if name in METHODS:
        return at(text, offset, f"{name}() takes {'one text' if METHODS[name] else 'nothing'}")
    return at(text, offset, f"Envoy has no method '{name}'", did_you_mean(name, METHODS))


def at(text: str, offset: int, message: str, remedy: str = "") -> Mistake:
    """A mistake at an offset. Columns count from 1, in each line of the condition."""
    before = text[:offset].replace(f"{PRESENT}.", "")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    where = f"column {column}" if line == 1 else f"line {line}, column {column}"
    return Mistake(f"{where}: {message}", remedy or "see cel.dev for the language")


def offset_of(text: str, line: int, column: int) -> int:
    """The offset in a text of a line and a column, which count from 1."""
    lines = text.split("\n")
    return sum(len(one) + 1 for one in lines[: line - 1]) + column - 1


def too_deep() -> Mistake:
    """The mistake for a condition that is too deep for Envoy, protobuf or CEL's compiler."""
    return Mistake("the condition is nested too deeply", "write it flatter, or use ext_authz")
