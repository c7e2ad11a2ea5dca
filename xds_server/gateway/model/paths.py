"""The four kinds of path match, parsed from the one string that a user writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from filters.language import Mistake
from filters.model import escapes
from xds_server.gateway.model import pathregex, regex

Kind = Literal["exact", "template", "regex", "prefix"]

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]*")
_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SURELY_SMALL = 200
"""The length up to which Envoy accepts every path, so that thousands of paths need not be compiled here."""
REMEDY = "write /x, /x/*, /x/{id} or ~^/regex"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A parsed path.

    `value` is the exact path, the prefix without its ``/*``, the template, or the regular expression. All but a
    regular expression are in the form of `escapes.canonical`.
    """

    kind: Kind
    value: str
    names: tuple[str, ...] = ()

    @property
    def regex(self) -> str:
        """The RE2 for the whole path, with a group for each name.

        A regular expression of the user is searched for in the path: it is anchored only by its own ^ and $.
        """
        if self.kind == "regex":
            one, value = "|" not in self.value, pathregex.spellings(self.value)
            begin = "" if one and value.startswith("^") else ".*"
            end = "" if one and value.endswith("$") and not value.endswith("\\$") else ".*"
            return f"{begin}(?:{value}){end}" if begin or end else value
        if self.kind == "prefix":
            return f"{escapes.spellings(self.value)}{'.*' if self.value.endswith('/') else '(?:/.*)?'}"
        return _template(self.value)

    @property
    def spelled(self) -> bool:
        """True if a client can write an exact path or a prefix in several ways, so that matching needs `regex`."""
        return self.kind != "regex" and escapes.spelled(self.value)

    @property
    def escaped_slash(self) -> bool:
        """True if only listeners that keep escaped slashes get requests for it."""
        return self.kind != "regex" and ("%2F" in self.value or "%5C" in self.value)

    @property
    def positions(self) -> dict[str, int]:
        """The number of the group of each name in `regex`."""
        if self.kind == "regex":
            return dict(regex.compiled(self.value).groupindex)
        return {name: number for number, name in enumerate(self.names, 1)}

    @property
    def named_regex(self) -> str:
        """`regex` with named groups, or "" if the path has no names."""
        if self.kind == "regex":
            return self.regex if regex.compiled(self.value).groupindex else ""
        if not self.names:
            return ""
        parts = re.split(r"\{(\w+)\}", self.value)
        return "".join(
            f"(?P<{part}>[^/]+)" if number % 2 else escapes.spellings(part)
            for number, part in enumerate(parts)
        )

    def __str__(self) -> str:
        return {"regex": f"~{self.value}", "prefix": f"{self.value}/*"}.get(self.kind, self.value)


@lru_cache(maxsize=65536)
def _template(value: str) -> str:
    parts = re.split(r"(\{\w+\})", value)
    return "".join("([^/]+)" if part.startswith("{") else escapes.spellings(part) for part in parts)


@lru_cache(maxsize=65536)
def parse_path(text: str) -> PathMatch:
    """Return a parsed ``path`` of a route. Raises Mistake."""
    if text.startswith("~"):
        return _regex(text[1:])
    if not text.startswith("/"):
        raise Mistake("a path must begin with /", REMEDY, value=text)
    if "?" in text or "#" in text:
        raise Mistake("a path must not have ? or #", "match the query with 'query'", value=text)
    prefix = text.endswith("/*")
    body = text[:-2] if prefix else text
    names: list[str] = []
    for segment in body.split("/")[1:]:
        if match := _NAME.fullmatch(segment):
            names.append(match[1])
        elif "*" in segment or "{" in segment or "}" in segment:
            raise Mistake(
                "* is allowed only at the end after /, {name} only as a whole segment", REMEDY, value=text
            )
        elif not _SEGMENT.fullmatch(segment):
            raise Mistake("this character is not allowed in a path", "escape it as %XX", value=text)
        elif segment in (".", ".."):
            raise Mistake(
                "the gateway resolves . and .. before it matches", "write the resolved path", value=text
            )
    if len(set(names)) != len(names):
        raise Mistake("a name is used twice in the template", "name each segment differently", value=text)
    if names and prefix:
        raise Mistake("a template has no * at its end", "write a regex: ~^/users/[^/]+/.*", value=text)
    if not prefix and "//" in body:
        raise Mistake("the gateway merges // into / before it matches", "write /", value=text)
    kind: Kind = "prefix" if prefix else "template" if names else "exact"
    return _bounded(PathMatch(kind, _canonical(body, text), tuple(names)))


def _canonical(body: str, text: str) -> str:
    """Return the path in its one form. Raises Mistake for an escape that no request has when Envoy matches it."""
    for escape in escapes.found(body):
        if len(escape) == 1:
            raise Mistake(
                "% begins an escape of two hexadecimal digits", "write the character % as %25", value=text
            )
        if escape == "%00":
            raise Mistake("Envoy answers every request with %00 with 400", "remove it", value=text)
        if (char := escapes.decoded(escape)) is not None:
            resolved = _resolved(text)
            remedy = "" if resolved is None else f"write the resolved path, {resolved}"
            raise _decoded(escape, char, text, remedy)
    return escapes.canonical(body)


def _resolved(path: str) -> str | None:
    """Return the path with its dot segments resolved by Envoy (RFC 3986 section 5.2.4), or None if it has none."""
    plain = re.sub(r"%[0-9A-Fa-f]{2}", lambda one: escapes.decoded(one[0]) or one[0], path)
    segments = plain.split("/")[1:]
    if not {".", ".."}.intersection(segments):
        return None
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    end = [""] if kept and segments[-1] in (".", "..") else []
    return "/" + "/".join([*kept, *end])


def _decoded(escape: str, char: str, text: str, remedy: str = "") -> Mistake:
    message = f"no request has {escape} when Envoy matches it: Envoy decodes it to {char}"
    return Mistake(message, remedy or f"write {char}", value=text)


def _bounded(match: PathMatch) -> PathMatch:
    if match.kind == "regex" or len(match.value) > _SURELY_SMALL:
        regex.check(match.regex)
    return match


def _regex(pattern: str) -> PathMatch:
    names = tuple(regex.compiled(pattern).groupindex)
    for escape in pathregex.written(pattern):
        if (char := escapes.decoded(escape)) is not None:
            raise _decoded(escape, char, pattern)
    return _bounded(PathMatch("regex", pattern, names))
