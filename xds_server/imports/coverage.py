"""How much of a source was imported: its values by section, and how many of them were reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from filters.language import Path, Problem

_DEPTH = 2


class Source(Protocol):
    """A document, or a directive at the top of one."""

    def leaves(self) -> Iterator[Path]:
        """Yield the paths of all values that have no parts."""


@dataclass(frozen=True, slots=True)
class Row:
    """The values of a section. `reported` are those about which, or about a part of whose owner, something was reported."""

    section: str
    values: int
    reported: int


def rows(sources: Iterable[Source], problems: Iterable[Problem]) -> list[Row]:
    """Return a row for each section, in the order of their names."""
    told = {problem.path for problem in problems}
    values, reported = Counter[str](), Counter[str]()
    for source in sources:
        for path in source.leaves():
            section = _section(path)
            values[section] += 1
            reported[section] += any(path[:length] in told for length in range(1, len(path) + 1))
    return [Row(name, count, reported[name]) for name, count in sorted(values.items())]


def table(found: Iterable[Row]) -> str:
    """Return aligned columns with a head."""
    lines = [("section", "values", "imported", "reported")]
    lines += [
        (one.section, str(one.values), str(one.values - one.reported), str(one.reported)) for one in found
    ]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def leaves_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of all scalars and empty parts of a value."""
    parts = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    empty = True
    for key, part in parts:
        empty = False
        yield from leaves_of(part, (*path, key))
    if empty:
        yield path


def _section(path: Path) -> str:
    """Return the first keys of a path, up to the first element of a list."""
    names: list[str] = []
    for part in path[:_DEPTH]:
        if isinstance(part, int):
            break
        names.append(part)
    return ".".join(names) or "-"
