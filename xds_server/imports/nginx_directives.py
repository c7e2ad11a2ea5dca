"""The directives of nginx's configuration as crossplane reads them. Each knows its place, and whether it was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from filters.language import Path, Place


class Directive:
    """A directive with its arguments, and with those of its block. Reading it marks it as read."""

    __slots__ = ("arguments", "block", "name", "path", "place", "seen")

    def __init__(self, parsed: Any, above: Path, file: str) -> None:
        self.name: str = parsed["directive"]
        self.arguments: list[str] = parsed["args"]
        file = parsed.get("file", file)
        self.place = Place(file, parsed["line"], 1)
        self.path: Path = (*above, " ".join((self.name, *self.arguments[:1])))
        self.block = [Directive(one, self.path, file) for one in parsed.get("block", ())]
        self.seen = False

    @property
    def value(self) -> str:
        """The directive as it is written."""
        return " ".join((self.name, *self.arguments))

    def all(self, *names: str) -> list[Directive]:
        """Return the directives of the block with one of these names, and mark them as read, but not what is in their blocks."""
        found = [one for one in self.block if one.name in names]
        for one in found:
            one.seen = True
        return found

    def last(self, name: str) -> Directive | None:
        """Return the last directive of the block with a name."""
        found = self.all(name)
        return found[-1] if found else None

    def first_argument(self, name: str, default: str = "") -> str:
        """Return the first argument of the last directive with a name."""
        found = self.last(name)
        return found.arguments[0] if found is not None and found.arguments else default

    def skip(self) -> None:
        """Mark it as read with all of its block."""
        self.seen = True
        for one in self.block:
            one.skip()

    def leaves(self) -> Iterator[Path]:
        """Yield the paths of all directives without a block."""
        if not self.block:
            yield self.path
        for one in self.block:
            yield from one.leaves()

    def unread(self) -> Iterator[Directive]:
        """Yield what nobody has read."""
        if not self.seen:
            yield self
            return
        for one in self.block:
            yield from one.unread()


def inherited(levels: Sequence[Directive], *names: str) -> list[Directive]:
    """Return the directives with these names of the innermost level that has one, as nginx inherits most of them."""
    for level in reversed(levels):
        found = level.all(*names)
        if found:
            for outer in levels:
                outer.all(*names)
            return found
    return []
