"""The rules of Traefik's routers: matchers with &&, || and !, as alternatives of conditions of routes.

Source: Traefik 3, "Rules & Priority" of HTTP routers.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from xds_server.imports.draft import BELOW
from xds_server.imports.text_prefixes import TEXT

_TOKEN = re.compile(r"\s*(?:(&&|\|\||!|\(|\))|([A-Za-z]+)\s*\(\s*((?:`[^`]*`|\"[^\"]*\"|'[^']*')(?:\s*,\s*(?:`[^`]*`|\"[^\"]*\"|'[^']*'))*)\s*\))")  # fmt: skip
_TEXT = re.compile(r"`([^`]*)`|\"([^\"]*)\"|'([^']*)'")
_SPECIAL = re.compile(r"[{}*]")
"""Characters that are plain text in a path of Traefik 3, and have a meaning here."""
_ONE_OF = frozenset({"Path", "PathPrefix", "PathRegexp", "HostRegexp"})
"""Matchers whose values are alternatives, which the syntax of version 2 allows to be several."""
_HOST = re.compile(r"[A-Za-z0-9_.-]+")
_MOST = 64
"""Alternatives of one rule."""


class RuleError(Exception):
    """The rule has no equal. The message says why."""


class Matcher(NamedTuple):
    """One matcher with its values. It is `negated` if a ! is before it."""

    name: str
    values: tuple[str, ...]
    negated: bool = False


Alternative = tuple[Matcher, ...]
"""Matchers that must all match."""


def alternatives(rule: str) -> list[Alternative]:
    """Return the alternatives of a rule. Raises RuleError."""
    tokens = list(_tokens(rule))
    parser = _Parser(tokens)
    found = parser.any()
    if parser.at != len(tokens):
        raise RuleError("it cannot be read to its end")
    return found


def surely(rule: str) -> dict[str, Any]:
    """Return the conditions that all requests of a rule without an equal surely meet, as far as they are known."""
    found: dict[str, Any] = {}
    if "||" in rule:
        return found
    with contextlib.suppress(RuleError):
        for one in _tokens(rule):
            if isinstance(one, Matcher) and one.name == "Host":
                found["hosts"] = [value.lower() for value in one.values]
            elif isinstance(one, Matcher) and one.name in ("Path", "PathPrefix"):
                found["path"] = f"~^{re.escape(one.values[0])}.*$"
    return {} if re.search(r"!\s*(\(|Host|Path)", rule) else found


def _tokens(rule: str) -> Iterator[str | Matcher]:
    at = 0
    rule = rule.strip()
    while at < len(rule):
        found = _TOKEN.match(rule, at)
        if found is None:
            raise RuleError(f"it cannot be read at '{rule[at : at + 20]}'")
        at = found.end()
        if found[1]:
            yield found[1]
        else:
            yield Matcher(
                found[2],
                tuple(
                    next(one for one in text if one) if any(text) else "" for text in _TEXT.findall(found[3])
                ),
            )


_DEEPEST = 64
"""Parentheses and negations in each other."""


class _Parser:
    def __init__(self, tokens: Sequence[str | Matcher]) -> None:
        self._tokens, self.at, self._depth = tokens, 0, 0

    def _next(self) -> str | Matcher | None:
        return self._tokens[self.at] if self.at < len(self._tokens) else None

    def any(self) -> list[Alternative]:
        found = self._all()
        while self._next() == "||":
            self.at += 1
            found = [*found, *self._all()]
        return _bounded(found)

    def _all(self) -> list[Alternative]:
        found = self._one()
        while self._next() == "&&":
            self.at += 1
            found = _bounded([(*one, *other) for one, other in product(found, self._one())])
        return found

    def _one(self) -> list[Alternative]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RuleError("it is nested too deeply")
        found = self._matched()
        self._depth -= 1
        return found

    def _matched(self) -> list[Alternative]:
        token = self._next()
        self.at += 1
        if isinstance(token, Matcher):
            return [(token,)]
        if token == "!":  # noqa: S105 - an operator
            return _not(self._one())
        if token == "(":  # noqa: S105
            found = self.any()
            if self._next() != ")":
                raise RuleError("a parenthesis is not closed")
            self.at += 1
            return found
        raise RuleError("a matcher is missing")


def _not(alternatives: list[Alternative]) -> list[Alternative]:
    """Return what matches if none of the alternatives does (De Morgan)."""
    negated = [[(one._replace(negated=not one.negated),) for one in some] for some in alternatives]
    return _bounded([tuple(one for (one,) in chosen) for chosen in product(*negated)])


def _bounded(found: list[Alternative]) -> list[Alternative]:
    if len(found) > _MOST:
        raise RuleError(f"it has more than {_MOST} alternatives")
    return found


def conditions(alternative: Alternative) -> list[dict[str, Any]]:
    """Return the conditions of the routes for an alternative. Raises RuleError for matchers without an equal."""
    found: list[dict[str, Any]] = []
    for chosen in product(*map(_variants, alternative)):
        one: dict[str, Any] = {}
        for matcher in chosen:
            _add(one, matcher)
        found.append(one)
    return found


def wider_hosts(alternative: Alternative) -> list[str]:
    """Return the regular expressions of hosts with one label more, which here become hosts with any number of labels more."""
    return [
        text
        for one in alternative
        if one.name == "HostRegexp"
        for text in one.values
        if not text.lstrip("^").startswith(".")
    ]


def _variants(one: Matcher) -> tuple[Matcher, ...]:
    """Return matchers of which one must match. What is negated matches without the header too, and our condition does not."""
    if not one.negated:
        if one.name in _ONE_OF and len(one.values) > 1:
            return tuple(one._replace(values=(value,)) for value in one.values)
        return (one,)
    if one.name not in ("Header", "HeaderRegexp", "Query", "QueryRegexp"):
        raise RuleError(f"!{one.name} has no equal")
    absent = one._replace(name=one.name.removesuffix("Regexp"), values=one.values[:1])
    return (absent,) if len(one.values) == 1 else (absent, one)


def _add(found: dict[str, Any], one: Matcher) -> None:
    name, values = one.name, one.values
    _check(one)
    if name == "Host":
        _once(found, "hosts", [value.lower() for value in values])
    elif name == "HostRegexp":
        match = re.fullmatch(
            r"\^?(?:\[\^\.\]\+|\[a-z0-9-\]\+|\.\+|\[a-zA-Z0-9-\]\+)((?:\\\.[A-Za-z0-9-]+)+)\$?", values[0]
        )
        if match is None:
            raise RuleError(f"HostRegexp(`{values[0]}`) has no equal; write the hosts, or *.example.com")
        _once(found, "hosts", ["*" + match[1].replace("\\", "")])
    elif name == "Path":
        _once(found, "path", f"~^{re.escape(values[0])}$" if _SPECIAL.search(values[0]) else values[0])
    elif name == "PathPrefix" and _SPECIAL.search(values[0]):
        _once(found, "path", f"~^{re.escape(values[0])}.*$")
    elif name == "PathPrefix":
        _once(found, "path", values[0].rstrip("/") + "/*")
        if not values[0].endswith("/"):
            found[TEXT] = values[0]
        found |= {BELOW: True} if re.search("[^/]/+$", values[0]) else {}
    elif name == "PathRegexp":
        anchored = values[0] if values[0].startswith("^") else f".*{values[0]}"
        _once(found, "path", f"~{anchored}" + ("" if values[0].endswith("$") else ".*"))
    elif name == "Method":
        _once(found, "methods", [value.upper() for value in values])
    elif name in ("Header", "Headers", "HeaderRegexp", "HeadersRegexp"):
        _value(found.setdefault("headers", {}), one)
    elif name in ("Query", "QueryRegexp"):
        _value(found.setdefault("query", {}), one)
    else:
        raise RuleError(f"{name} has no equal")


def _check(one: Matcher) -> None:
    """Raise RuleError for a value that no condition of the language has."""
    if one.name in ("Path", "PathPrefix") and "%" in one.values[0]:
        raise RuleError(f"the escape in {one.name}(`{one.values[0]}`) has no equal")
    if one.name == "Host" and not all(map(_HOST.fullmatch, one.values)):
        raise RuleError(f"Host(`{'`, `'.join(one.values)}`) is no host")


def _value(found: dict[str, Any], one: Matcher) -> None:
    key = one.values[0]
    if key in found:
        raise RuleError(f"two conditions on {key} have no equal")
    value = one.values[1] if len(one.values) > 1 else ""
    if one.name.endswith("Regexp"):
        condition: Any = {"regex": f".*(?:{value}).*" if not value.startswith("^") else value.removeprefix("^").removesuffix("$") + ("" if value.endswith("$") else ".*")}  # fmt: skip
    elif len(one.values) == 1:
        condition = {"present": not one.negated}
    else:
        condition = value
    if one.negated and len(one.values) > 1:
        condition = {**(condition if isinstance(condition, dict) else {"exact": condition}), "not": True}
    found[key] = condition


def _once(found: dict[str, Any], key: str, value: Any) -> None:
    if key in found and found[key] != value:
        raise RuleError(f"two conditions on the {key.removesuffix('s')} have no equal")
    found[key] = value
