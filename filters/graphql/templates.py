"""Templates of paths, headers and bodies: ``/users/{arg:id}``. The sources have the words of `transform`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any
from urllib.parse import quote

from filters.graphql.request_context import RequestContext
from filters.language import Mistake
from filters.language.problems import did_you_mean
from filters.language.tokens import TOKEN
from filters.model import claims
from filters.transform import paths

PLAIN = ("consumer", "plan", "request_id")
NAMED = ("arg", "claim", "header", "parent")
IDS = "ids"
"""The source of the keys of a batch."""
_ALL = (*(f"{kind}:NAME" for kind in NAMED), *PLAIN)
_REFERENCE = re.compile(r"\{([^{}]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH = re.compile(r"/[!-~]*")


class MissingValue(Exception):  # noqa: N818 - tells which value is missing, as data
    """A source without a value, where one is needed."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source} has no value")
        self.source = source


class UnusableValue(Exception):  # noqa: N818 - tells which value is unusable, as data
    """A value that cannot be part of a path or a header."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"the value of {source} cannot be used here")
        self.source = source


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from. `steps` lead to it in an argument or the parent. `each` repeats a parameter (RFC 6570 ``*``)."""

    kind: str
    name: str = ""
    steps: tuple[str, ...] = ()
    each: bool = False

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Values:
    """The values that the sources of one call have."""

    arguments: Mapping[str, Any]
    parent: Any
    context: RequestContext
    ids: Sequence[Any] = ()
    sent: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    """The steps by which values of arguments are found, where `@value` gives an input field another name."""

    def of(self, source: Source) -> Any:
        """The value of a source, None if there is none."""
        match source.kind:
            case "arg":
                return _below(self.arguments, self.sent.get(source.steps, source.steps))
            case "parent":
                return _below(self.parent, source.steps)
            case "claim":
                return self.context.claim(source.name)
            case "header":
                return self.context.header(source.name)
            case "ids":
                return self.ids
            case kind:
                return getattr(self.context, kind)


def _below(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


Part = str | Source
Parts = tuple[Part, ...]


def parse(text: str, *, batch: bool = False) -> Parts:
    """The constant texts and the sources of a template. `batch` allows ``{ids}``. Raises Mistake."""
    parts: list[Part] = []
    at = 0
    for match in _REFERENCE.finditer(text):
        parts += [text[at : match.start()], _source(match[1], batch=batch)]
        at = match.end()
    parts.append(text[at:])
    if any(isinstance(one, str) and ("{" in one or "}" in one) for one in parts):
        raise Mistake("a brace without its other one", "write {arg:id}", value=text)
    return tuple(one for one in parts if one != "")


def _source(written: str, *, batch: bool) -> Source:
    each = written.endswith("*")
    kind, colon, name = written.removesuffix("*").partition(":")
    if kind == IDS and not colon:
        if batch:
            return Source(IDS, each=each)
        raise Mistake(
            "{ids} are the keys of a batch, and this is no batch", "write {arg:NAME}", value=written
        )
    if kind in PLAIN and not colon:
        return Source(kind, each=each)
    if kind in NAMED and name:
        if kind in ("arg", "parent"):
            return Source(kind, name, tuple(map(paths.name_of, paths.names(name))), each)
        if kind == "header" and not re.fullmatch(TOKEN, name):
            raise Mistake("not a header's name", "use letters, digits and -", value=name)
        if kind == "claim" and (fault := claims.check(name)) is not None:
            raise fault
        return Source(kind, name.lower() if kind == "header" else name, each=each)
    remedy = f"write one of {', '.join(_ALL)}" if kind not in NAMED else f"write {{{kind}:NAME}}"
    raise Mistake(
        "no source of a value has this name",
        did_you_mean(kind, (*NAMED, *PLAIN)) if colon else remedy,
        value=written,
    )


def sources(parts: Parts) -> Iterator[Source]:
    """The sources of a template."""
    return (one for one in parts if isinstance(one, Source))


def scalar(value: Any, source: Source) -> str:
    """A value as text: numbers as in JSON, lists with commas. Raises MissingValue, UnusableValue."""
    if isinstance(value, str):
        return value
    if value is None:
        raise MissingValue(source)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return json.dumps(value)
    raise UnusableValue(source)


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path with its query. Values are escaped (RFC 3986 section 2.1), so none can add a segment or a parameter."""

    text: str
    path: Parts
    query: tuple[Parts, ...]

    @classmethod
    def parse(cls, text: str, *, batch: bool = False) -> PathTemplate:
        """The template of a path. Raises Mistake."""
        if not _PATH.fullmatch(_REFERENCE.sub("x", text)) or "#" in text:
            raise Mistake("not a path", "begin it with /, and escape other characters as %XX", value=text)
        path, _, query = text.partition("?")
        pairs = tuple(parse(one, batch=batch) for one in query.split("&")) if query else ()
        return cls(text, parse(path, batch=batch), pairs)

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, those of the path first."""
        return (*sources(self.path), *(one for parts in self.query for one in sources(parts)))

    def render(self, values: Values) -> str:
        """The path. A parameter is left out if one of its values is missing. Raises MissingValue, UnusableValue."""
        path = "".join(one if isinstance(one, str) else _segment(one, values) for one in self.path)
        query = "&".join(text for parts in self.query for text in _pairs(parts, values))
        return f"{path}?{query}" if query else path


def _segment(source: Source, values: Values) -> str:
    text = _listed(values.of(source), source)
    if text in ("", ".", ".."):
        raise UnusableValue(source)  # it would change which resource the path names
    return text


def _listed(value: Any, source: Source) -> str:
    if isinstance(value, list | tuple):
        return ",".join(quote(scalar(one, source), safe="") for one in value)
    return quote(scalar(value, source), safe="")


def _pairs(parts: Parts, values: Values) -> Iterator[str]:
    """The parameters that a part of a query becomes: none, one, or one for each element of a list."""
    repeated = next((one for one in sources(parts) if one.each), None)
    try:
        if repeated is None:
            yield "".join(one if isinstance(one, str) else _listed(values.of(one), one) for one in parts)
            return
        found = values.of(repeated)
        for value in found if isinstance(found, list | tuple) else (found,):
            yield "".join(
                one if isinstance(one, str) else _listed(value if one is repeated else values.of(one), one)
                for one in parts
            )
    except MissingValue:
        return


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """The value of a header."""

    parts: Parts

    def render(self, values: Values) -> str | None:
        """The text, or None if a value is missing. Raises UnusableValue."""
        try:
            text = "".join(one if isinstance(one, str) else scalar(values.of(one), one) for one in self.parts)
        except MissingValue:
            return None
        if _CONTROL.search(text):
            raise UnusableValue(next(sources(self.parts)))
        return text


_ABSENT: Any = object()
_Render = Callable[[Values], Any]


@dataclass(frozen=True, slots=True)
class BodyTemplate:
    """A JSON body. A text that is one template becomes the value itself; without a value its member is left out."""

    render: _Render
    sources: tuple[Source, ...]

    @classmethod
    def parse(cls, value: Any, *, batch: bool = False) -> BodyTemplate:
        """The template of a body, written as JSON. Raises Mistake."""
        found: list[Source] = []
        render = _compiled(value, found, batch)
        return cls(lambda values: _or_null(render(values)), tuple(found))


def _or_null(value: Any) -> Any:
    return None if value is _ABSENT else value


def _compiled(value: Any, found: list[Source], batch: bool) -> _Render:
    if isinstance(value, Mapping):
        members = {key: _compiled(one, found, batch) for key, one in value.items()}
        return lambda values: {
            key: made for key, render in members.items() if (made := render(values)) is not _ABSENT
        }
    if isinstance(value, list | tuple):
        elements = [_compiled(one, found, batch) for one in value]
        return lambda values: [made for render in elements if (made := render(values)) is not _ABSENT]
    if not isinstance(value, str):
        return lambda _values: value
    parts = parse(value, batch=batch)
    found += sources(parts)
    if len(parts) == 1 and isinstance(parts[0], Source):
        return _whole(parts[0])
    return lambda values: "".join(
        one if isinstance(one, str) else scalar(values.of(one), one) for one in parts
    )


def _whole(source: Source) -> _Render:
    """The value of a source. An argument that is null is sent as null, one that was not given is left out."""

    def render(values: Values) -> Any:
        value = values.of(source)
        if source.kind == IDS:
            return list(value)
        given = source.kind == "arg" and len(source.steps) == 1 and source.steps[0] in values.arguments
        return value if value is not None or given else _ABSENT

    return render
