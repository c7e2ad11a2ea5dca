"""Schemas and OpenAPI documents as files: JSON, or YAML 1.2 with the core schema."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import yaml

MOST_VALUES = 1_000_000
"""Values of one document. Aliases of YAML could make more of a small file."""

DEEPEST = 256
"""Levels of nesting. PyYAML recurses in C for each, so a document with very many would end the process."""


class DocumentError(ValueError):
    """A document cannot be used. The message says where, and why."""


class _Loader(yaml.CSafeLoader):
    """Reads YAML 1.2: `yes`, `on` and dates are texts. A name that occurs twice is an error."""

    depth = 0
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the library's name

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise DocumentError(f"line {key.start_mark.line + 1}: '{key.value}' is written twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def descend_resolver(self, parent: Any, _index: Any) -> None:
        """Count the levels of nesting."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise DocumentError(f"line {parent.start_mark.line + 1}: more than {DEEPEST} levels of nesting")

    def ascend_resolver(self) -> None:
        self.depth -= 1


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


@lru_cache(maxsize=64)
def parsed(content: bytes) -> Any:
    """The value of a document, as JSON has it: names are texts. It must not be changed. Raises DocumentError."""
    if content.lstrip()[:1] in (b"{", b"["):
        try:
            return json.loads(content, object_pairs_hook=_once, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            pass  # it is YAML, or an error, for which YAML knows the line
    try:
        value = yaml.load(content, _Loader)  # noqa: S506 - it is a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise DocumentError(f"{where}{error.problem or 'no YAML'}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DocumentError(str(error).splitlines()[0]) from None
    return _plain(value, [0])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of JSON. Raises ValueError for a name that occurs twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is written twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any, count: list[int]) -> Any:
    count[0] += 1
    if count[0] > MOST_VALUES:
        raise DocumentError(f"it has more than {MOST_VALUES:,} values")
    if isinstance(value, dict):
        return {_name(key): _plain(one, count) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one, count) for one in value]
    return value


def _name(key: Any) -> str:
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    return str(key)
