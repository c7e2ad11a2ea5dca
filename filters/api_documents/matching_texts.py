"""The shortest text that a simple regular expression matches, for examples. (Libraries make random texts.)"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import re2

LONGEST = 200
"""Characters of the longest text."""
_QUIET = re2.Options()
_QUIET.log_errors = False


class Random(Protocol):
    """The part of `random.Random` that values are chosen with."""

    def randint(self, a: int, b: int) -> int:
        """A whole number from a to b."""

    def choice(self, seq: Any) -> Any:
        """One of a sequence."""


def matching(pattern: str, random: Random | None = None) -> str | None:
    """Return a text that a simple regular expression matches, or None.

    It knows literals, classes, groups without alternatives of their own, and quantifiers.
    """
    try:
        expression = re2.compile(pattern, _QUIET)
        text = _Pattern(pattern, random).text()
    except (re2.error, ValueError, IndexError, RecursionError, OverflowError):
        return None
    return text if len(text) <= LONGEST and expression.search(text) else None


_CLASSES = {"d": "0123456789", "w": "abcdefghijklmnopqrstuvwxyz0123456789_", "s": " "}
_QUANTIFIER = re.compile(r"\{(\d+)(,(\d*))?\}")


class _Pattern:
    """Reads a regular expression from left to right and writes the shortest text for each part."""

    def __init__(self, pattern: str, random: Random | None) -> None:
        self._pattern, self._at, self._random = pattern, 0, random

    def text(self, end: str = "") -> str:
        """Return the text up to the character that ends this part. Raises ValueError for what it does not know."""
        found: list[str] = []
        while self._at < len(self._pattern) and self._pattern[self._at] != end:
            one = self._part()
            if one is None:  # an alternative begins: the first one suffices
                self._skip(end)
                break
            found.append("".join(islice(self._repeated(one), LONGEST)))
        return "".join(found)

    def _skip(self, end: str) -> None:
        depth = 0
        while self._at < len(self._pattern):
            sign = self._pattern[self._at]
            if sign == "\\":
                self._at += 1
            elif sign == "(":
                depth += 1
            elif sign == ")":
                if end == ")" and not depth:
                    return
                depth -= 1
            self._at += 1

    def _part(self) -> Callable[[], str] | None:
        """Return a function to the text of one part, or None if an alternative begins."""
        sign = self._pattern[self._at]
        self._at += 1
        if sign in "^$":
            return lambda: ""
        if sign == "|":
            return None
        if sign == ".":
            return lambda: "x"
        if sign == "[":
            return self._one_of(self._class())
        if sign == "(":
            return self._group()
        if sign == "\\":
            return self._escaped()
        if sign in "*+?{":
            raise ValueError("a quantifier of nothing")
        return lambda: sign

    def _escaped(self) -> Callable[[], str]:
        sign = self._pattern[self._at]
        self._at += 1
        if sign in _CLASSES:
            return self._one_of(_CLASSES[sign])
        if sign in "bBAZz":
            return lambda: ""
        if sign.isalnum():
            raise ValueError("an escape that is not known")
        return lambda: sign

    def _group(self) -> Callable[[], str]:
        if self._pattern.startswith("?", self._at):
            if not self._pattern.startswith("?:", self._at):
                raise ValueError("a group that is not known")
            self._at += 2
        text = self.text(")")
        if not self._pattern.startswith(")", self._at):
            raise ValueError("a group without an end")
        self._at += 1
        return lambda: text

    def _class(self) -> str:
        if self._pattern.startswith("^", self._at):
            raise ValueError("a class of what is not in it")
        found = ""
        while self._pattern[self._at] != "]" or not found:
            sign = self._pattern[self._at]
            self._at += 1
            if sign == "\\":
                escaped = self._pattern[self._at]
                self._at += 1
                found += _CLASSES.get(escaped, escaped)
            elif sign == "-" and found and self._pattern[self._at] != "]":
                last = ord(self._pattern[self._at])
                self._at += 1
                found += "".join(map(chr, range(ord(found[-1]) + 1, min(last, ord(found[-1]) + 128) + 1)))
            else:
                found += sign
        self._at += 1
        return found

    def _one_of(self, signs: str) -> Callable[[], str]:
        random = self._random
        return (lambda: signs[0]) if random is None else (lambda: str(random.choice(signs)))

    def _repeated(self, one: Callable[[], str]) -> Iterator[str]:
        least = 1
        rest = self._pattern[self._at : self._at + 1]
        quantifier = _QUANTIFIER.match(self._pattern, self._at)
        if quantifier:
            self._at, least = quantifier.end(), int(quantifier[1])
        elif rest and rest in "*?+":
            self._at, least = self._at + 1, 0 if rest in "*?" else 1
        if self._pattern.startswith("?", self._at):
            self._at += 1
        if least > LONGEST:
            raise ValueError("a text that is too long")
        yield from (one() for _ in range(least))
