"""The problems of a gateway, as data: they are collected, located, and shown all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the document, as in ``("routes", "users", "methods", 0)``."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the tab, line ends, marks that change the direction of text, and halves of characters."""


def printable(text: str) -> str:
    """Return a text in one line, in which nothing controls a terminal: such characters are escaped as in Python."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file of the gateway folder; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error in a gateway: its place, its message and its remedy.

    `at_key` is true if the key itself is wrong and not its value. `value` is the value that the user wrote; it is
    safe to print, because values of secrets never get here. `also` is the place at which the same was written first, or
    that of `also_path`, which the message is about too. `route` is the route with which settings of another place do not
    agree.
    """

    path: Path
    message: str
    remedy: str = ""
    value: str | None = None
    at_key: bool = False
    severity: Literal["error", "warning"] = "error"
    place: Place | None = None
    also: Place | None = None
    also_path: Path = ()
    route: str = ""

    @property
    def where(self) -> str:
        """The path as a person writes it: ``routes.users.methods[0]``."""
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text

    def __str__(self) -> str:
        parts = [f"{self.place}: " if self.place else "", f"{self.severity}: "]
        parts += [f"{self.where}: " if self.path else "", self.message]
        if self.also is not None:
            parts.append(f" ({self.also})" if self.also_path else f", the first time at {self.also}")
        parts += [f" (found {self.value})" if self.value is not None else ""]
        parts += [f"; {self.remedy}" if self.remedy else ""]
        return printable("".join(parts))


def short_repr(value: object, limit: int = 60) -> str:
    """The value as a problem shows it: at most `limit` characters in one line, control characters escaped."""
    match value:
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            text = repr(value)
        case _:
            text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for a name that does not exist: the nearest name, or a list of all names if the list is short."""
    names = sorted(known)
    near = get_close_matches(name, names, 1, 0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    if not names:
        return ""
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"known: {listed}"
