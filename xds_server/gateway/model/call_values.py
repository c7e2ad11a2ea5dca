"""Values of calls: templates of JSON in the words of `transform`, and paths with `{…}` as in `rewrite`.

A source may also be the answer of another call: ``call:user.id``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filters.language import Mistake, Path
from filters.transform import paths, sources
from filters.transform.paths import Steps
from filters.transform.sources import Source

CALL = "call"
"""The kind of the sources that are answers of calls."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class FromSource:
    """A value that comes from a source. `default` is the value without one; `has_default` tells null from none."""

    source: Source
    default: Any = None
    has_default: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is written as it is."""

    value: Any


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """An object whose members are templates."""

    members: Mapping[str, Template]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose elements are templates."""

    elements: tuple[Template, ...]


Template = FromSource | Constant | ObjectOf | ListOf
Text = tuple[str | Source, ...]
"""A path: literal texts and sources, in their order."""


def source(written: Any, place: Path) -> Source:
    """Return the source that a user wrote, such as ``claim:tenant`` or ``call:user.id``. Raises Mistake."""
    kind, colon, name = str(written).partition(":")
    if kind != CALL or not colon:
        return sources.source(written, place, more=(CALL,))
    try:
        paths.steps(name)
    except Mistake as mistake:
        remedy = "write call:NAME for a whole answer, or call:NAME.field.field"
        raise Mistake("not a call and a path in its answer", remedy, path=place, value=written) from mistake
    return Source(CALL, name)


def called(one: Source) -> tuple[str, Steps]:
    """Return the name of the call of a source, and the steps in its answer."""
    steps = paths.steps(one.name)
    return paths.name_of(steps[0]), steps[1:]


def template(written: Any, place: Path) -> Template:
    """Return the template that a user wrote. Raises Mistake."""
    if isinstance(written, Mapping):
        if set(written) == {"value"}:
            return _constant(written["value"], (*place, "value"))
        if "from" in written:
            return _from_source(written, place)
        members = {name: template(value, (*place, name)) for name, value in written.items()}
        return ObjectOf(members)
    if isinstance(written, list | tuple):
        return ListOf(tuple(template(one, (*place, number)) for number, one in enumerate(written)))
    return _constant(written, place)


def _constant(written: Any, place: Path) -> Constant:
    sources.setting({"value": written}, place)  # raises Mistake for what JSON does not have
    return Constant(written)


def setting(written: Any, place: Path) -> FromSource | Constant:
    """Return the value of a header or of a parameter: a text, a number, or ``{from: SOURCE, default: …}``. Raises Mistake."""
    if isinstance(written, Mapping) and "from" in written:
        found = _from_source(written, place)
        if found.default is not None:
            sources.text(found.default, (*place, "default"))
        return found
    return Constant(sources.text(written, place))


def _from_source(written: Mapping[str, Any], place: Path) -> FromSource:
    extra = sorted(set(written) - {"from", "default"})
    if extra:
        remedy = "remove it, or write {value: {…}} for an object with a member 'from'"
        raise Mistake(f"'{extra[0]}' does not go with 'from'", remedy, path=(*place, extra[0]))
    found = source(written["from"], (*place, "from"))
    return FromSource(found, written.get("default"), "default" in written)


def text(written: str, place: Path) -> Text:
    """Return a path with its sources in braces; ``{id}`` is a segment of the route's template. Raises Mistake."""
    found: list[str | Source] = []
    for number, part in enumerate(_BRACES.split(written)):
        if number % 2:
            found.append(
                source(f"path:{part}" if _NAME.fullmatch(part) and part not in sources.PLAIN else part, place)
            )
        elif "{" in part or "}" in part:
            raise Mistake("a brace without its other one", "write {NAME}", path=place, value=written)
        elif part:
            found.append(part)
    return tuple(found)


def sources_of(one: Template | Text) -> Iterator[Source]:
    """Yield the sources of a template or of a path."""
    match one:
        case FromSource():
            yield one.source
        case ObjectOf():
            for member in one.members.values():
                yield from sources_of(member)
        case ListOf():
            for element in one.elements:
                yield from sources_of(element)
        case tuple():
            yield from (part for part in one if isinstance(part, Source))
        case _:
            return
