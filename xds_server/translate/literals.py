"""The texts with which the path and the headers of every request begin that a route can match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from envoy.config.route.v3 import route_components_pb2 as pb

from filters.language import Mistake
from xds_server.gateway.model import pathregex, regex

Literal = tuple[str, str | None]
"""A text with which a value must begin, and the characters that may follow it; None: every character."""
Literals = Mapping[str, Literal]
"""Literals by the name of their header. A header that is missing here may have every value, or be absent."""

ANYTHING: Literal = ("", None)
PATH = ":path"
"""The header of the path. Envoy leaves the query string in it (RFC 9113 section 8.3.1)."""
_NAME = re.compile(r":method|[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The names of headers by which routes are found: fields (RFC 9110 section 5.1), and the method."""
_IN_PATH, _IN_QUERY = "/?#", "?#"
"""The characters that may follow a prefix that ends at a segment, and a whole path."""
_LONGEST = 128
"""The maximum number of bytes of a literal."""
_ASSERTIONS = frozenset(("^", "$", "\\b", "\\B", "\\A", "\\z"))
_SIMPLE = re.compile(r"\^?(/(?:[A-Za-z0-9/_]|\\[-.~])*)(?=[(\[.]|\Z)")
"""Literal text up to a group, a class or the end, so that no quantifier follows it."""


def of_route(match: pb.RouteMatch) -> Literals:
    """Return the literals of a route's condition, always with that of the path."""
    found = {PATH: _path(match)}
    for header in match.headers:
        literal = _header(header)
        if literal is not None and _NAME.fullmatch(header.name):
            found.setdefault(header.name.lower(), literal)
    return found


def _path(match: pb.RouteMatch) -> Literal:
    if match.HasField("case_sensitive") and not match.case_sensitive.value:
        return ANYTHING
    kind = match.WhichOneof("path_specifier")
    if kind == "path":
        return _plain(match.path, _IN_QUERY)
    if kind == "prefix":
        return _plain(match.prefix, None)
    if kind == "path_separated_prefix":
        return _plain(match.path_separated_prefix, _IN_PATH)
    return (beginning(match.safe_regex.regex), None) if kind == "safe_regex" else ANYTHING


def _header(matcher: pb.HeaderMatcher) -> Literal | None:
    """Return the literal of a header's value, or None if the header may be missing or begin with anything."""
    string = matcher.string_match
    kind = string.WhichOneof("match_pattern")
    if matcher.invert_match or matcher.treat_missing_header_as_empty or string.ignore_case:
        return None
    if matcher.WhichOneof("header_match_specifier") != "string_match" or kind not in ("exact", "prefix"):
        return None
    found = _plain(getattr(string, kind), "" if kind == "exact" else None)
    return found if found[0] else None


def _plain(text: str, following: str | None) -> Literal:
    """Return the literal of a text. Literals are ASCII, so that their characters are bytes."""
    if text.isascii() and len(text) <= _LONGEST:
        return text, following
    return _ascii(text.encode()[:_LONGEST]), None


def _ascii(data: bytes) -> str:
    end = next((at for at, byte in enumerate(data) if byte > 0x7E or byte < 0x20), len(data))
    return data[:end].decode()


@lru_cache(maxsize=65536)
def beginning(pattern: str) -> str:
    """Return a text with which every path begins that an RE2 matches as a whole. It may be shorter than possible.

    Text before the first operator is taken as it is, because that costs little for the templates of a large gateway.
    For all else, RE2 knows the smallest and the largest text that an expression can match. Assertions such as ``^``
    are removed first, because RE2 does not respect them there. Without them an expression matches more.
    """
    simple = _SIMPLE.match(pattern)
    if simple is not None and "|" not in pattern:
        return simple[1].replace("\\", "")[:_LONGEST]
    parts = (token[0] for token in pathregex.TOKEN.finditer(pattern))
    free = "".join("(?:)" if part in _ASSERTIONS else part for part in parts)
    try:
        low, high = regex.extremes(free, _LONGEST)
    except Mistake:  # Envoy rejects a raw expression; here it is no error
        return ""
    return _ascii(low[: common(low, high)])


def common(one: str | bytes, other: str | bytes) -> int:
    """Return the length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
