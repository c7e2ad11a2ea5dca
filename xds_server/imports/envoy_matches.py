"""The conditions of Envoy's routes (envoy.config.route.v3.RouteMatch) as those of the language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xds_server.imports.source import Field

_EXACT, _TEMPLATE, _REGEX, _PREFIX = 3, 2, 1, 0
_TEXTS = ("exact", "prefix", "suffix", "contains")
_METHODS = re.compile(r"\^?\(?([A-Z]+(?:\|[A-Z]+)*)\)?\$?")


class Unsupported(Exception):  # noqa: N818 - it says what it is
    """The conditions have no equal. The message says why."""


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions of a route: those of the language, and what decides between routes."""

    conditions: dict[str, Any]
    kind: int
    path: str
    """The path without what makes it a prefix, or the regular expression."""

    @classmethod
    def of(cls, field: Field | None, hosts: Sequence[str]) -> Match:
        """Return the conditions of a route of these hosts, all if there are none. Raises Unsupported."""
        if field is None:
            raise Unsupported("a route without match has no equal")
        conditions: dict[str, Any] = {"hosts": list(hosts)} if hosts else {}
        kind, path, written = _path(field)
        conditions["path"] = written
        for one in field.elements("headers"):
            _header(one, conditions)
        for one in field.elements("query_parameters"):
            name = one.text("name")
            conditions.setdefault("query", {})[name] = _value(one, one.get("string_match"))
        if field.get("grpc") is not None:
            field.read("grpc")
            conditions.setdefault("headers", {})["content-type"] = {"regex": "application/grpc(\\+.*)?"}
        for name in ("runtime_fraction", "tls_context", "dynamic_metadata", "filter_state", "cookies"):
            if field.get(name) is not None:
                raise Unsupported(f"a condition by {name} has no equal")
        return cls(conditions, kind, path)

    @classmethod
    def known(cls, field: Field | None, hosts: Sequence[str]) -> Match:
        """Return the conditions of a route of which some have no equal: its hosts, and its path if that has one."""
        conditions: dict[str, Any] = {"hosts": list(hosts)} if hosts else {}
        try:
            kind, path, written = _path(field) if field is not None else (_PREFIX, "", "/*")
        except Unsupported:
            kind, path, written = _PREFIX, "", "/*"
        return cls({**conditions, "path": written}, kind, path)

    @property
    def is_prefix(self) -> bool:
        return self.kind == _PREFIX

    @property
    def is_regex(self) -> bool:
        return self.kind == _REGEX

    def covers(self, other: Match) -> bool:
        """Whether it surely has every request of the other one: it has no condition but its path."""
        return not self.conditions.keys() & {"methods", "headers", "query"} and self.path_covers(other)

    def path_covers(self, other: Match) -> bool:
        """Whether every path of the other one is surely one of its paths."""
        if self.is_prefix:
            return self.path == "" or (not other.is_regex and below(other.path, self.path))
        return (self.kind, self.path) == (other.kind, other.path)

    def overlaps(self, other: Match) -> bool:
        """Whether both may have a path in common."""
        if self.kind in (_EXACT, _PREFIX) and other.kind in (_EXACT, _PREFIX):
            below_mine = self.is_prefix and below(other.path, self.path)
            return below_mine or (other.is_prefix and below(self.path, other.path)) or self.path == other.path
        mine, theirs = self.beginning(), other.beginning()
        return mine.startswith(theirs) or theirs.startswith(mine)

    def beginning(self) -> str:
        """Return the text with which every path surely begins."""
        if self.kind == _TEMPLATE:
            return self.path.partition("{")[0]
        if self.kind != _REGEX:
            return self.path
        literal = re.match(r"[^\\.^$*+?()\[\]{}|]*", self.path)
        if literal is None or "|" in self.path:
            return ""
        is_repeated = self.path[literal.end() : literal.end() + 1] in ("*", "?", "{")
        return literal[0][:-1] if is_repeated else literal[0]


def below(path: str, prefix: str) -> bool:
    """Whether a path is the prefix, or below it on a segment boundary."""
    return path == prefix or path.startswith(f"{prefix}/")


def _path(field: Field) -> tuple[int, str, str]:
    """Return the kind of a path, the path, and the path as the language has it. Raises Unsupported."""
    ignores_case = field.text("case_sensitive") == "false"
    if pattern := field.text("safe_regex", "regex"):
        field.read("safe_regex")
        return _REGEX, pattern, f"~^{pattern}$"
    if template := field.text("path_match_policy", "typed_config", "path_template"):
        field.read("path_match_policy")
        if not re.fullmatch(r"(/[^/{}*]+|/\{[A-Za-z_]\w*\})+", template):
            raise Unsupported(f"the template {template} has no equal")
        return _TEMPLATE, template, template
    prefix = field.text("path_separated_prefix") or field.text("prefix")
    path = field.text("path")
    if ignores_case and (path or prefix.strip("/")):
        pattern = re.escape(path) if path else f"{re.escape(prefix.rstrip('/'))}(/.*)?"
        return _REGEX, pattern, f"~^(?i){pattern}$"
    if path:
        return _EXACT, path, path
    if prefix:
        base = prefix.rstrip("/")
        return _PREFIX, base, f"{base}/*"
    raise Unsupported("a match without a path has no equal")


def _header(field: Field, conditions: dict[str, Any]) -> None:
    """Add the condition of a header. Raises Unsupported."""
    name = field.text("name").lower()
    if name == ":method":
        value = _value(field, field.get("string_match"))
        methods = (
            _METHODS.fullmatch(str(value.get("exact", value.get("regex", ""))))
            if isinstance(value, dict)
            else None
        )
        if methods is None or value.get("not"):
            raise Unsupported("a condition of the method that is no list has no equal")
        conditions["methods"] = methods[1].split("|")
        conditions["wrong_method"] = 404
        return
    if name.startswith(":"):
        raise Unsupported(f"a condition of the header {name} has no equal")
    conditions.setdefault("headers", {})[name] = _value(field, field.get("string_match"))


def _value(field: Field, match: Field | None) -> dict[str, Any]:
    """Return the condition of a value, also of one in the form before Envoy 1.20. Raises Unsupported."""
    found: dict[str, Any] = {}
    if match is not None:
        found = {name: match.text(name) for name in _TEXTS if match.get(name) is not None}
        if pattern := match.text("safe_regex", "regex"):
            found["regex"] = pattern
            match.read("safe_regex")
        if match.true("ignore_case"):
            raise Unsupported("a condition that ignores case has no equal")
    for name in _TEXTS:
        if field.get(f"{name}_match") is not None:
            found[name] = field.text(f"{name}_match")
    if pattern := field.text("safe_regex_match", "regex"):
        found["regex"] = pattern
        field.read("safe_regex_match")
    if field.get("range_match") is not None:
        raise Unsupported("a range of numbers has no equal")
    if not found:
        found["present"] = field.text("present_match", default="true") == "true"
    if field.true("treat_missing_header_as_empty"):
        raise Unsupported("treat_missing_header_as_empty has no equal")
    if field.true("invert_match"):
        if "present" in found:
            return {"present": not found["present"]}
        found["not"] = True  # a header that is absent matches neither here nor there
    return found
