"""Substitutions in paths: the rewritten path must always begin with a slash.

Envoy replaces every match of an expression (RE2's GlobalReplace). Only a match at the beginning of the path can
remove its first slash, or put text before it. A substitution is rejected if the result is not certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from filters.language import Mistake
from xds_server.gateway.model import regex
from xds_server.gateway.model.pathregex import TOKEN

_REFERENCE = re.compile(r"\\(.?)", re.DOTALL)
_DOLLAR = re.compile(r"\$(?:\d|\{\w+\})")
_STRANGE = re.compile(r"[^!-~]")
_NO_WIDTH = ("^", "$", r"\A", r"\b", r"\B", r"\z")
_GROUP = re.compile(r"\(\Z|\(\?P?<")


def check(pattern: str, substitution: str) -> Iterator[Mistake]:
    """Yield the mistakes of the text that replaces a match in a path."""
    groups = regex.compiled(pattern).groups
    for reference in _REFERENCE.finditer(substitution):
        if reference[1] == "\\":
            continue
        if not reference[1].isascii() or not reference[1].isdigit():
            yield Mistake(
                f"'{reference[0]}' is not a reference to a group",
                "write \\1 for the first group, \\\\ for \\",
            )
            return
        if int(reference[1]) > groups:
            has = f"has only {groups}" if groups else "has none"
            yield Mistake(
                f"there is no group {reference[0]}: the expression {has}", "add the group, or remove it"
            )
            return
    if dollar := _DOLLAR.search(substitution):
        yield Mistake(f"'{dollar[0]}' is not a reference to a group here", "write \\1 for the first group")
    elif "?" in substitution or "#" in substitution:
        yield Mistake("a path must not have ? or #", "the query of the request goes on as it is; remove it")
    elif strange := _STRANGE.search(substitution):
        yield Mistake(f"{strange[0]!a} is not allowed in a path", "escape it as %XX")
    elif not _begins_with_slash(pattern, substitution):
        yield Mistake(
            "the rewritten path would not always begin with /",
            "begin the substitution with /, or with a group that begins with /",
        )


def _begins_with_slash(pattern: str, substitution: str) -> bool:
    parsed = _Parser(pattern)
    empty, first = _begin(parsed.whole, at_start=True)
    takes_slash = any(regex.matches(part, "/") for part in first)
    if not empty and not takes_slash:
        return True  # no match is at the beginning
    if substitution == "":
        return not takes_slash
    reference = re.match(r"\\([0-9])", substitution)
    if reference is None:
        return substitution.startswith("/")
    if reference[1] == "0":
        return not empty
    group = parsed.groups[int(reference[1]) - 1]
    empty, first = _begin(group.content, at_start=False)
    return group.certain and not empty and all(map(_is_slash, first))


@dataclass(slots=True)
class _Part:
    """One character, an assertion without width, or alternatives of sequences of parts."""

    text: str = ""
    alternatives: list[list[_Part]] = field(default_factory=list)
    optional: bool = False


@dataclass(slots=True)
class _Group:
    """A numbered group. It is `certain` if every match has it."""

    content: _Part
    certain: bool = True


class _Parser:
    """Parses an expression that RE2 accepts. `groups` are in the order of their numbers."""

    def __init__(self, pattern: str) -> None:
        self.groups: list[_Group] = []
        self.whole = _Part(alternatives=[[]])
        self._open = [(self.whole, 0)]  # with the number of groups that began before each
        self._within: dict[int, int] = {}
        for token in TOKEN.finditer(pattern):
            if token["structure"]:
                self._structure(token[0])
            elif token["quantifier"]:
                self._quantifier(token[0])
            else:
                self._last.extend(map(_Part, _characters(token)))
        self._close()

    @property
    def _last(self) -> list[_Part]:
        """The sequence that is being parsed."""
        return self._open[-1][0].alternatives[-1]

    def _structure(self, text: str) -> None:
        if text == "|":
            self._open[-1][0].alternatives.append([])
        elif text == ")":
            self._close()
        elif text in _NO_WIDTH:
            self._last.append(_Part(text))
        elif not text.endswith(")"):  # otherwise it sets flags
            part = _Part(alternatives=[[]])
            self._last.append(part)
            if _GROUP.match(text):
                self.groups.append(_Group(part))
            self._open.append((part, len(self.groups)))

    def _close(self) -> None:
        part, begin = self._open.pop()
        self._within[id(part)] = begin - any(group.content is part for group in self.groups)
        if len(part.alternatives) > 1:
            self._doubt(begin)

    def _quantifier(self, text: str) -> None:
        if text.startswith(("?", "*", "{0")):
            part = self._last[-1]
            part.optional = True
            self._doubt(self._within.get(id(part), len(self.groups)))

    def _doubt(self, begin: int) -> None:
        for group in self.groups[begin:]:
            group.certain = False


def _characters(token: re.Match[str]) -> list[str]:
    """Return the parts of a token, each of which matches one character."""
    if token["quoted"]:
        return [re.escape(char) for char in token[0].removeprefix("\\Q").removesuffix("\\E")]
    return list(token[0].removeprefix("\\")) if token["escape"] else [token[0]]


def _begin(part: _Part, *, at_start: bool) -> tuple[bool, list[str]]:
    """Return True if a part can match the empty text, and the parts that can match its first character.

    `at_start` is true at the beginning of a path, where ``$`` cannot match because a slash follows.
    """
    if not part.alternatives:
        if part.text in _NO_WIDTH:
            return not (at_start and part.text in ("$", r"\z")), []
        return part.optional, [part.text]
    empty, first = part.optional, []
    for sequence in part.alternatives:
        for part_of_sequence in sequence:
            passes, begin = _begin(part_of_sequence, at_start=at_start)
            first += begin
            if not passes:
                break
        else:
            empty = True
    return empty, first


def _is_slash(part: str) -> bool:
    """True if a part that matches one character matches only a slash."""
    low, high = regex.compiled(part).possiblematchrange(4)
    return bool(low == b"/" and high == b"/")
