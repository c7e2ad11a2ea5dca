"""transform and fields as a user writes them, and the mistakes that need nothing else of the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from filters import framing
from filters.decompression.names import DEFAULT_SIZE, LARGEST_SIZE
from filters.language import Mistake, Path, Size, option
from filters.language.tokens import TOKEN
from filters.model import claims
from filters.model.identity import IDENTITY_HEADERS
from filters.transform import paths
from filters.transform.paths import ELEMENTS, Steps
from filters.transform.plans import Change, Plan, plan
from filters.transform.sources import Setting, Source, setting, text

NOTHING: Mapping[str, Any] = MappingProxyType({})
StatusClass = Literal["2xx", "3xx", "4xx", "5xx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChanges:
    """Changes of headers. They apply to every message, whatever its body is."""

    remove: tuple[str, ...] = option("Names of headers to remove.", default=())
    rename: Mapping[str, str] = option("New names of headers, by their present names.", default=NOTHING)
    set: Mapping[str, Any] = option(
        "Values of headers: a text, or `{from: SOURCE, default: …}` as for fields. Without a value the header is removed.",
        default=NOTHING,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of names and of values."""
        for number, name in enumerate(self.remove):
            yield from _header_name(name, ("remove", number))
        for old, new in self.rename.items():
            yield from _header_name(old, ("rename", old))
            yield from _written_header(new, ("rename", old))
        for name, value in self.set.items():
            yield from _written_header(name, ("set", name))
            try:
                found = _header_setting(name, value)
            except Mistake as mistake:
                yield mistake
                continue
            if found.source is not None and found.source.kind == "body":
                remedy = "take the value from elsewhere; headers do not depend on the body"
                yield Mistake("a header cannot come from the body", remedy, path=("set", name), value=value)

    def settings(self) -> Mapping[str, Setting]:
        """The values to set, by the name of the header."""
        return {name.lower(): _header_setting(name, value) for name, value in self.set.items()}


def _header_setting(name: str, value: Any) -> Setting:
    found = setting(value, ("set", name))
    if found.source is None:
        return Setting(json=text(value, ("set", name)))
    if found.default is None:
        return found
    return Setting(source=found.source, default=text(value["default"], ("set", name, "default")))


def _header_name(name: str, place: Path) -> Iterator[Mistake]:
    if not re.fullmatch(TOKEN, name):
        yield Mistake("not a header's name", "use letters, digits and -", path=place, value=name)
    elif (fault := framing.check(name, place)) is not None:
        yield fault


def _written_header(name: str, place: Path) -> Iterator[Mistake]:
    yield from _header_name(name, place)
    if name.lower() in IDENTITY_HEADERS:
        message = "only the gateway sets this header, because it tells upstreams who the caller is"
        yield Mistake(message, "use another name", path=place, value=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyChanges:
    """Changes of a JSON body, in this order: unwrap, only, remove, rename, set, wrap. Paths name fields as they were sent."""

    unwrap: str | None = option(
        "The path of the value that becomes the whole body. A body without it stays.", default=None
    )
    only: tuple[str, ...] = option(
        "Paths of the fields to keep; all others are removed.", default=(), narrows=True
    )
    remove: tuple[str, ...] = option("Paths of fields to remove.", default=())
    rename: Mapping[str, str] = option("New names of fields in the same object, by path.", default=NOTHING)
    set: Mapping[str, Any] = option(
        "Values of fields, by path: a constant, `{from: SOURCE, default: …}`, or `{value: …}` for a constant object. "
        "Sources: request_id, consumer, plan, ip, method, host, route, claim:NAME, path:NAME, query:NAME, header:NAME, "
        "body:PATH. A field whose source has no value is removed.",
        default=NOTHING,
    )
    wrap: str | None = option("The path at which the body is put into new objects.", default=None)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of paths and values, and of changes that contradict each other."""
        faults = [*self._faults()]
        yield from faults
        if not faults:
            yield from _contradictions(self.changes()[0])

    def _faults(self) -> Iterator[Mistake]:
        for key in ("unwrap", "wrap"):
            written = getattr(self, key)
            if written is not None:
                yield from _one_value(written, (key,))
        for key in ("only", "remove"):
            for number, path in enumerate(getattr(self, key)):
                yield from _field(path, (key, number))
        for path, name in self.rename.items():
            yield from _field(path, ("rename", path))
            if not name:
                yield Mistake("the new name is empty", "write a name", path=("rename", path), value=name)
        for path, value in self.set.items():
            yield from _field(path, ("set", path))
            try:
                setting(value, ("set", path))
            except Mistake as mistake:
                yield mistake

    def changes(self) -> tuple[list[Change], list[Setting]]:
        """The changes of fields, and their values. The detail of a `set` is the number of its value in the list."""
        found = [Change(paths.steps(path), "keep") for path in self.only]
        found += [Change(paths.steps(path), "remove") for path in self.remove]
        found += [Change(paths.steps(path), "rename", name) for path, name in self.rename.items()]
        settings: list[Setting] = []
        for path, value in self.set.items():
            found.append(Change(paths.steps(path), "set", len(settings)))
            settings.append(setting(value, ("set", path)))
        return found, settings


def _one_value(path: str, place: Path) -> Iterator[Mistake]:
    try:
        paths.names(path)
    except Mistake as mistake:
        yield Mistake(mistake.message, mistake.remedy, path=place, value=path)


def _field(path: str, place: Path) -> Iterator[Mistake]:
    fault = paths.checked(path, place)
    if fault is not None:
        yield fault
    elif paths.steps(path)[-1] == ELEMENTS:
        yield Mistake(
            "this path names the elements of an array and not a field",
            "leave out [] at its end",
            path=place,
            value=path,
        )


_KEYS = {"keep": "only", "remove": "remove", "rename": "rename", "set": "set"}


def _contradictions(changes: list[Change]) -> Iterator[Mistake]:
    """Yield a mistake for each second change of a field, or of a field inside of one that is removed or set."""
    seen: dict[Steps, Change] = {}
    for one in changes:
        if one.what == "keep":
            continue
        names = _plain(one)
        for end in range(1, len(names) + 1):
            other = seen.get(names[:end])
            if other is not None and (end == len(names) or other.what != "rename"):
                yield _twice(one, other)
                break
        seen[names] = one
    for one in changes:
        names = _plain(one)
        for other_names, other in seen.items():
            inside = len(names) < len(other_names) and other_names[: len(names)] == names
            if inside and one.what in ("remove", "set") and changes.index(one) > changes.index(other):
                yield _twice(other, one)
    yield from _names_twice(changes)


def _names_twice(changes: list[Change]) -> Iterator[Mistake]:
    made: dict[Steps, Change] = {_plain(one): one for one in changes if one.what == "set"}
    for one in changes:
        if one.what == "rename":
            new = (*_plain(one)[:-1], one.detail)
            if new in made:
                yield _twice(one, made[new])
            made[new] = one


def _twice(one: Change, other: Change) -> Mistake:
    return Mistake(
        f"'{_KEYS[one.what]}' and '{_KEYS[other.what]}' change the same field",
        "keep one of them",
        path=(_KEYS[one.what],),
        value=".".join(_plain(one)),
    )


def _plain(change: Change) -> Steps:
    return tuple(step for step in change.steps if step != ELEMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTransform(BodyChanges):
    """Changes of requests. A JSON body that cannot be read is rejected with 400. Other bodies pass as they are."""

    headers: HeaderChanges | None = option("Changes of headers.", default=None)
    max_body: Size = option(
        "The size of the largest JSON body that is changed.",
        default=Size(DEFAULT_SIZE),
        minimum=1,
        maximum=LARGEST_SIZE,
    )
    oversize: Literal["reject", "pass"] = option(
        "What happens to a larger JSON body with a content-length: 413, or it passes as it is. Without a "
        "content-length it is always rejected.",
        default="reject",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTransform(BodyChanges):
    """Changes of responses. A JSON body that cannot be read becomes a 500. Other bodies pass as they are.

    The upstream is asked for whole bodies without content coding. ETags become weak.
    """

    statuses: tuple[int | StatusClass, ...] = option(
        "The statuses of the responses that are changed, such as 200 or 2xx. Default: all.",
        default=(),
        narrows=True,
    )
    headers: HeaderChanges | None = option(
        "Changes of headers. Here the source `header:NAME` is a header of the response.", default=None
    )
    max_body: Size = option(
        "The size of the largest JSON body that is changed.",
        default=Size(DEFAULT_SIZE),
        minimum=1,
        maximum=LARGEST_SIZE,
    )
    oversize: Literal["reject", "pass"] = option(
        "What happens to a larger JSON body with a content-length: 500, or it passes as it is. Without a "
        "content-length it is always rejected.",
        default="reject",
    )

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of statuses too."""
        yield from BodyChanges.check(self)
        for number, one in enumerate(self.statuses):
            if isinstance(one, int) and not 200 <= one <= 599:
                remedy = "write one from 200 to 599, or a class such as 2xx"
                yield Mistake("no response has this status", remedy, path=("statuses", number), value=one)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformSettings:
    """Changes of headers and of JSON bodies: `application/json`, `text/json` and every type that ends in `+json`.

    What is not named stays as it was sent, byte for byte. An object with the same name twice is rejected.
    """

    request: RequestTransform | None = option("Changes of requests.", default=None)
    response: ResponseTransform | None = option("Changes of responses.", default=None)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if nothing changes."""
        found = [one for one in (self.request, self.response) if one is not None]
        if not any(one.headers or one.changes()[0] or one.unwrap or one.wrap for one in found):
            yield Mistake("nothing is changed", "write changes under request: or response:")


View = Literal["all"] | tuple[str, ...]
BY_SHAPE = "header:NAME, query:NAME, consumer, plan or claim:NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldsSettings:
    """Views of JSON responses with a status of 2xx, one for each kind of client."""

    by: str = option(
        f"What tells the kind of client: {BY_SHAPE}.",
        pattern=r"consumer|plan|(header|query|claim):\S.*",
        shape=BY_SHAPE,
        example="header:x-client",
    )
    default: View | None = option(
        "The view of all other clients. It must be written unless `by` is a header or a parameter; then it is `all`.",
        default=None,
    )
    max_body: Size = option(
        "The size of the largest JSON body, 500 above it.",
        default=Size(DEFAULT_SIZE),
        minimum=1,
        maximum=LARGEST_SIZE,
    )
    views: Mapping[str, View] = option(
        "The view of a kind of client: `all`, or the paths of the fields to keep.",
        default=NOTHING,
        others=True,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of paths, and a mistake for callers that would get everything because nothing is written."""
        for name, view in (("default", self.default), *self.views.items()):
            for number, path in enumerate(view if isinstance(view, tuple) else ()):
                yield from _field(path, (name, number))
        kind, _, name = self.by.partition(":")
        if kind == "header" and not re.fullmatch(TOKEN, name):
            yield Mistake("not a header's name", "use letters, digits and -", path=("by",), value=self.by)
        if kind == "claim" and (fault := claims.check(name)) is not None:
            yield Mistake(fault.message, fault.remedy, path=("by",), value=self.by)
        if self.default is None and kind not in ("header", "query"):
            remedy = "write default: all, or the fields that they get"
            yield Mistake(f"callers without a view by '{self.by}' would get everything", remedy, path=("by",))
        if not self.views and self.default is None:
            yield Mistake("there is no view", "write one, such as mobile: [id, name]", path=())

    @property
    def source(self) -> Source:
        """The source of the name of the view."""
        kind, _, name = self.by.partition(":")
        return Source(kind, name.lower() if kind == "header" else name)

    def plans(self) -> tuple[Mapping[str, Plan | bool], Plan | bool]:
        """The plans of the views, and that of other clients. False stands for `all`."""
        views = {name: _view(view) for name, view in self.views.items()}
        return views, _view(self.default or "all")


def _view(view: View) -> Plan | bool:
    if isinstance(view, str):
        return False
    return plan([Change(paths.steps(path), "keep") for path in view]) if view else plan_of_nothing()


def plan_of_nothing() -> Plan:
    """The plan that keeps no field."""
    return {"node": {"members": {}, "only": True}}


def sources(settings: Iterable[Setting]) -> Iterator[Source]:
    """The sources of values."""
    for one in settings:
        if one.source is not None:
            yield one.source
