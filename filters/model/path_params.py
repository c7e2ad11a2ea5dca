"""The values of the names in a route's path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote

import re2

_TEMPLATE = re.compile(r"(?:[^\\()\[\]*+?{}|]|\\.|\(\?P<\w+>\[\^/\]\+\))*")
"""Segments with names, as in the paths of most routes. For these Python's `re` needs no backtracking."""
_ESCAPE = re.compile(r"%[0-9a-fA-F]{2}")


def normalized(path: str) -> str:
    """A path with the digits of its escapes in upper case, because case does not matter (RFC 3986 section 6.2.2.1)."""
    return _ESCAPE.sub(lambda escape: escape[0].upper(), path) if "%" in path else path


@lru_cache(maxsize=4096)
def _pattern(regex: str) -> re.Pattern[str] | None:
    """The compiled expression.

    Users write it for RE2, and RE2 matches it, because backtracking could take very long.
    """
    try:
        compiled: re.Pattern[str] = (re if _TEMPLATE.fullmatch(regex) else re2).compile(regex)
        return compiled
    except (re.error, re2.error):
        return None


def path_params(regex: str, path: str) -> Mapping[str, str]:
    """The values by name, unescaped. `regex` matches the route's whole path; it is empty if the path has no names."""
    pattern = _pattern(regex) if regex else None
    match = pattern.fullmatch(path) if pattern is not None else None
    return {name: unquote(value or "") for name, value in match.groupdict().items()} if match else {}
