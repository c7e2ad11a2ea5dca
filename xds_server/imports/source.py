"""The values of a file that is imported. Each knows its place, and which of its parts an importer has read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any

from filters.language import Path, Place
from xds_server.gateway.document import Part
from xds_server.imports.coverage import leaves_of


class Field:
    """A value of a file. Reading a part of it marks that part as read. It is read as a `whole` if nothing of it is left."""

    __slots__ = ("_find", "_parts_read", "path", "value", "whole")

    def __init__(self, value: Any, path: Path, find: Callable[[Path], Place]) -> None:
        self.value, self.path = value, path
        self._find = find
        self.whole = False
        self._parts_read: dict[str | int, Field] = {}

    @classmethod
    def of(cls, part: Part) -> Field:
        """Return the value of a whole document."""
        return cls(part.values, (), part.place)

    @property
    def place(self) -> Place:
        """Where it is written."""
        return self._find(self.path)

    def get(self, *names: str) -> Field | None:
        """Return a part of a mapping, or a part of that, None if there is none. A part that is null is none."""
        found: Field | None = self
        for name in names:
            if found is None or not isinstance(found.value, Mapping) or found.value.get(name) is None:
                return None
            found = found.part(name, found.value[name])
        return found

    def items(self) -> Iterator[tuple[str, Field]]:
        """Yield the parts of a mapping that are not null. Anything else has none."""
        if isinstance(self.value, Mapping):
            for name, value in self.value.items():
                if value is not None:
                    yield name, self.part(name, value)

    def elements(self, *names: str) -> list[Field]:
        """Return the elements of a list, or of the one with this name. A value that is no list is its only element."""
        found = self.get(*names)
        if found is None:
            return []
        if not isinstance(found.value, list):
            return [found]
        return [found.part(at, value) for at, value in enumerate(found.value) if value is not None]

    def text(self, *names: str, default: str = "") -> str:
        """Return a text, or a number or truth as it is written; the default if there is none or it is no scalar."""
        found = self.get(*names)
        if found is None or isinstance(found.value, Mapping | list):
            return default
        found.read()
        return str(found.value).lower() if isinstance(found.value, bool) else str(found.value)

    def texts(self, *names: str) -> list[str]:
        """Return the texts of a list."""
        return [one.text() for one in self.elements(*names)]

    def number(self, *names: str) -> float | None:
        """Return a number, None if there is none."""
        text = self.text(*names)
        try:
            found = float(text) if text else None
        except ValueError:
            return None
        return found if found is None or isfinite(found) else None

    def numbers(self, *names: str) -> list[int]:
        """Return the whole parts of the numbers of a list."""
        return [int(found) for one in self.elements(*names) if (found := one.number()) is not None]

    def true(self, *names: str, default: bool = False) -> bool:
        """Return a truth."""
        text = self.text(*names)
        return text == "true" if text else default

    def read(self, *names: str) -> Any:
        """Mark a value as read with all its parts, and return it as plain values, None if there is none."""
        found = self.get(*names)
        if found is None:
            return None
        found.whole = True
        return found.value

    def unread(self) -> Iterator[Field]:
        """Yield the parts that nobody has read. A part none of whose own parts was read is yielded as a whole."""
        if self.whole or self.value in (None, [], {}):
            return
        if not self._parts_read:
            yield self
            return
        for key, value in _parts(self.value):
            yield from self.part(key, value).unread()

    def leaves(self) -> Iterator[Path]:
        """Yield the paths of all values that have no parts."""
        return leaves_of(self.value, self.path)

    def part(self, key: str | int, value: Any) -> Field:
        """Return the part with a key, whose value this is."""
        known = self._parts_read.get(key)
        if known is None:
            known = self._parts_read[key] = Field(value, (*self.path, key), self._find)
        return known


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)
