"""Aggregates: routes that answer with the answers of several calls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from filters import framing
from filters.language import Mistake, Path, Size, option
from filters.language.problems import did_you_mean
from filters.language.tokens import TOKEN
from filters.transform import paths
from filters.transform.sources import Source
from xds_server.gateway.model import call_values
from xds_server.gateway.model.call_values import CALL, Constant, FromSource, Template, Text

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_CALL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
MOST_CALLS = 32
"""The most calls of one aggregate."""
SAFE = ("GET", "HEAD")
"""Methods that change nothing (RFC 9110 section 9.2.1), so that a call may be repeated or given up."""
PARTIAL = "_errors"
"""The member of the response that names the calls whose answers are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatedCall:
    """One call to an upstream, and what the response takes from its answer, which is JSON."""

    upstream: str = option("The upstream that is called.", refers="upstreams")
    path: str = option(
        "The path with its query. `{id}` is a segment of the route's template; other sources of `transform` stand in "
        "braces too, such as `{query:page}`, `{claim:sub}`, `{body:user.id}` or `{call:user.id}`, which is a field of "
        "the answer of the call `user`. Values are escaped. Without a value, the call is not made and has failed.",
        pattern=r"/[!-~]*",
        shape="a path such as /users/{id}",
    )
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] | None = option(
        "The method. Default: GET, or POST if there is a body.", default=None
    )
    query: Mapping[str, Any] = option(
        "More parameters of the query: a text, or `{from: SOURCE, default: …}`. A parameter whose default is null is "
        "left out if its source has no value.",
        default=_EMPTY,
    )
    headers: Mapping[str, Any] = option(
        "Headers of the call, in place of those of the client's request: a text, or `{from: SOURCE, default: …}`.",
        default=_EMPTY,
    )
    body: Mapping[str, Any] | tuple[Any, ...] | None = option(
        "The body, as a template of JSON: constants and `{from: SOURCE, default: …}`.", default=None
    )
    target: str | None = option(
        "The path of the part of the answer that is used, such as `data.items`.", default=None
    )
    only: tuple[str, ...] = option(
        "Paths of the fields to keep; all others are removed.", default=(), narrows=True
    )
    rename: Mapping[str, str] = option("New names of fields in the same object, by path.", default=_EMPTY)
    group: str | None = option("The member of the response that gets the answer.", default=None)
    optional: bool = option(
        "True if the response does without the answer of this call if it fails.", default=False
    )
    timeout: timedelta | None = option(
        "The time limit of this call. Default: what is left of the route's timeout.",
        default=None,
        minimum=0.001,
    )

    @property
    def verb(self) -> str:
        """The method that is used."""
        return self.method or ("GET" if self.body is None else "POST")

    @property
    def text(self) -> Text:
        """The parsed path. Raises Mistake."""
        return call_values.text(self.path, ("path",))

    def settings(self, key: Literal["query", "headers"]) -> Mapping[str, FromSource | Constant]:
        """Return the parsed values of a key. Raises Mistake."""
        return {name: call_values.setting(value, (key, name)) for name, value in getattr(self, key).items()}

    def template(self) -> Template | None:
        """Return the parsed body. Raises Mistake."""
        return None if self.body is None else call_values.template(self.body, ("body",))

    def sources(self) -> Iterator[tuple[Path, Source]]:
        """Yield all sources of the call with their places. Raises Mistake."""
        yield from ((("path",), one) for one in call_values.sources_of(self.text))
        for key in ("query", "headers"):
            for name, value in self.settings(key).items():
                yield from (((key, name), one) for one in call_values.sources_of(value))
        body = self.template()
        if body is not None:
            yield from ((("body",), one) for one in call_values.sources_of(body))

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of one call."""
        try:
            list(self.sources())
        except Mistake as mistake:
            yield mistake
            return
        if "#" in self.path:
            yield Mistake("a path must not have #", "escape it as %23", path=("path",), value=self.path)
        for name in self.headers:
            if not re.fullmatch(TOKEN, name):
                yield Mistake(
                    "not a header's name", "use letters, digits and -", path=("headers", name), value=name
                )
            elif name.lower().startswith(framing.OF_ENVOY):
                yield Mistake(
                    "a header between Envoy and the composer",
                    "use another name",
                    path=("headers", name),
                    value=name,
                )
            elif (fault := framing.check(name, ("headers", name))) is not None and name.lower() != "host":
                yield fault
        if self.body is not None and self.verb in SAFE:
            remedy = "write method: POST, or remove the body"
            yield Mistake(f"a call by {self.verb} has no body", remedy, path=("method",), value=self.verb)
        yield from self._check_answer()

    def _check_answer(self) -> Iterator[Mistake]:
        if self.target is not None:
            try:
                paths.names(self.target)
            except Mistake as mistake:
                yield Mistake(mistake.message, mistake.remedy, path=("target",), value=self.target)
        for key, written in (("only", enumerate(self.only)), ("rename", ((one, one) for one in self.rename))):
            for place, path in written:
                fault = paths.checked(path, (key, place))
                if fault is not None:
                    yield fault
                elif paths.steps(path)[-1] == paths.ELEMENTS:
                    message = "this path names the elements of an array and not a field"
                    yield Mistake(message, "leave out [] at its end", path=(key, place), value=path)
        for path, name in self.rename.items():
            if not name:
                yield Mistake("the new name is empty", "write a name", path=("rename", path), value=name)


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """Several calls, and one response from their answers.

    Calls run at once. A call that uses the answer of another one runs after it.
    """

    calls: Mapping[str, AggregatedCall] = option("The calls by name.")
    response: Mapping[str, Any] | None = option(
        "The response, as a template of JSON: constants, objects, lists, and `{from: call:user.name, default: …}`. "
        "A member without a value is left out. Default: the members of all answers, in the order of the calls, where "
        "later ones win; an answer that is no object is a member with the name of its call.",
        default=None,
    )
    errors: Literal["body", "off"] = option(
        "`body` adds the member `_errors`, which names the calls whose answers are missing; `off` does not. The header "
        "`x-gateway-partial` names them in any case.",
        default="body",
    )
    max_answer: Size = option(
        "The size of the largest answer of a call; the call has failed if it is larger.",
        default=Size(1 << 20),
        minimum=1,
        maximum=64 << 20,
    )

    @cached_property
    def template(self) -> Template | None:
        """The parsed response. Raises Mistake."""
        return None if self.response is None else call_values.template(self.response, ("response",))

    @cached_property
    def after(self) -> Mapping[str, tuple[str, ...]]:
        """The calls whose answers each call uses. Raises Mistake."""
        return {name: tuple(dict.fromkeys(_called(one.sources()))) for name, one in self.calls.items()}

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The calls in their order: those of one stage need only answers of earlier ones. Raises Mistake for a cycle."""
        found: list[tuple[str, ...]] = []
        done: set[str] = set()
        while len(done) < len(self.calls):
            ready = tuple(
                name for name, needed in self.after.items() if name not in done and done.issuperset(needed)
            )
            if not ready:
                raise _cycle({name: needed for name, needed in self.after.items() if name not in done})
            done.update(ready)
            found.append(ready)
        return tuple(found)

    def sources(self) -> Iterator[tuple[Path, Source]]:
        """Yield all sources with their places. Raises Mistake."""
        for name, call in self.calls.items():
            yield from ((("calls", name, *place), one) for place, one in call.sources())
        if self.template is not None:
            yield from ((("response",), one) for one in call_values.sources_of(self.template))

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the calls."""
        if not self.calls:
            yield Mistake("an aggregate has at least one call", "write calls: {NAME: {…}}", path=("calls",))
        if len(self.calls) > MOST_CALLS:
            message = f"an aggregate has at most {MOST_CALLS} calls, and this one has {len(self.calls)}"
            yield Mistake(message, "divide it into several routes", path=("calls",))
        for name in self.calls:
            if not _CALL_NAME.fullmatch(name):
                remedy = "use letters, digits, - and _, at most 64"
                yield Mistake("not a usable name of a call", remedy, path=("calls", name), value=name)
        try:
            found = list(self.sources())
        except Mistake as mistake:
            yield mistake
            return
        unknown = list(self._unknown(found))
        yield from unknown
        if not unknown:
            try:
                _ = self.stages
            except Mistake as mistake:
                yield mistake
        yield from self._check_response()

    def _unknown(self, found: Iterable[tuple[Path, Source]]) -> Iterator[Mistake]:
        for place, one in found:
            if one.kind == CALL and (name := call_values.called(one)[0]) not in self.calls:
                remedy = did_you_mean(name, self.calls) or f"the calls are {', '.join(self.calls)}"
                yield Mistake(f"there is no call '{name}'", remedy, path=place, value=str(one))

    def _check_response(self) -> Iterator[Mistake]:
        if self.response is None:
            if self.errors == "body" and any(one.group == PARTIAL for one in self.calls.values()):
                remedy = "use another name, or write errors: off"
                yield Mistake(
                    f"'{PARTIAL}' names the calls that failed", remedy, path=("calls",), value=PARTIAL
                )
            return
        for name, call in self.calls.items():
            if call.group is not None:
                message = "'group' has no effect if there is a 'response'"
                yield Mistake(message, f"write {{from: call:{name}}} there", path=("calls", name, "group"))
        if self.errors == "body" and PARTIAL in self.response:
            remedy = "use another name, or write errors: off"
            yield Mistake(f"'{PARTIAL}' names the calls that failed", remedy, path=("response", PARTIAL))


def _called(found: Iterable[tuple[Path, Source]]) -> Iterator[str]:
    yield from (call_values.called(one)[0] for _, one in found if one.kind == CALL)


def _cycle(waiting: Mapping[str, tuple[str, ...]]) -> Mistake:
    """Return the mistake of calls that wait for each other. Each of `waiting` needs another one of them."""
    name = next(iter(waiting))
    seen: list[str] = []
    while name not in seen:
        seen.append(name)
        name = next(one for one in waiting[name] if one in waiting)
    circle = [*seen[seen.index(name) :], name]
    message = f"these calls wait for each other: {' → '.join(circle)}"
    remedy = "let one of them use something else than an answer"
    return Mistake(message, remedy, path=("calls", name))
