"""What a person writes in a file of tests: requests, what is expected of them, and what the stub upstreams answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar

from filters import framing
from filters.language import Mistake, Off, Path, Shorthand, option
from xds_server.gateway.model.actions import check_regex
from xds_server.gateway.model.routes import ValueMatch

_NONE: Mapping[str, Any] = MappingProxyType({})
_URL = r"/\S*|https?://[^\s/?#@]+(?:[/?#]\S*)?"
_REQUEST = re.compile(rf"(?:([A-Z]+) +)?({_URL})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMatch:
    """The condition on a body. A line end at its end does not count."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str, int, float, bool), "the exact text", {"type": ["string", "number", "boolean"]}
    )
    exact: str | None = option("Equal to this.", default=None, multiline=True)
    contains: str | None = option("Contains this.", default=None, multiline=True)
    regex: str | None = option("Matches this RE2 as a whole.", default=None, multiline=True)

    @classmethod
    def short(cls, value: Any) -> TextMatch:
        """Return a match of an exact text."""
        return cls(exact=str(value).lower() if isinstance(value, bool) else str(value))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if there is not exactly one condition."""
        if sum(one is not None for one in (self.exact, self.contains, self.regex)) != 1:
            yield Mistake("exactly one of exact, contains and regex is needed", "keep one")
        if self.regex:
            yield from check_regex(self.regex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token that is signed for the run. It is valid for an hour unless its claims say otherwise."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "the name of an identity provider")
    provider: str = option("The provider whose issuer and audience it has.", refers="identity")
    claims: Mapping[str, Any] = option(
        "Claims, which replace those of the provider: `{exp: 1}` is an expired token, and null removes one.",
        default=_NONE,
    )

    @classmethod
    def short(cls, value: Any) -> Token:
        """Return a token of a provider without more claims."""
        return cls(provider=value)


def _one_body(body: object, content: object) -> Iterator[Mistake]:
    if body is not None and content is not None:
        yield Mistake("'body' and 'json' are two bodies", "remove one", path=("json",))


def _framed(headers: Mapping[str, str]) -> Iterator[Mistake]:
    for name in headers:
        if name.lower() in framing.HEADERS - {"host"}:
            message = f"'{name}' frames the message or belongs to the connection, and xds test sets it"
            yield Mistake(message, "remove it", path=("headers", name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request to the gateway."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a method and a URL, such as GET /api/users/1")
    method: str = option("The method.", default="GET", pattern="[A-Z]+", shape="a method in capital letters")
    url: str = option(
        "The URL; a path alone goes to the first listener.",
        pattern=_URL,
        shape="a path, or a URL of http or https",
    )
    listener: str | None = option(
        "The listener that gets the request; default: the one with the URL's port or scheme.",
        default=None,
        refers="listeners",
    )
    headers: Mapping[str, str] = option("Headers.", default=_NONE)
    body: str | None = option("The body.", default=None, multiline=True)
    json: Any = option("The body as JSON; sets content-type unless it is given.", default=None)
    token: Token | None = option("A token of a provider, in the place where it is expected.", default=None)

    @classmethod
    def short(cls, value: Any) -> Sent:
        """Return a request without headers. Raises Mistake."""
        found = _REQUEST.fullmatch(value.strip())
        if found is None:
            raise Mistake("expected a method and a URL", "write GET /path or GET http://host/path")
        return cls(method=found[1] or "GET", url=found[2])

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for two bodies, and for headers that follow from the URL and the body."""
        yield from _one_body(self.body, self.json)
        for name in self.headers:
            if name.lower() == "host":
                yield Mistake("the host is part of the URL", "write http://HOST/path", path=("headers", name))
        yield from _framed(self.headers)

    @property
    def content(self) -> bytes:
        """The body."""
        return _content(self.body, self.json)

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers by name in lower case, with the content type of a JSON body."""
        found = {name.lower(): value for name, value in self.headers.items()}
        return found if self.json is None else {"content-type": "application/json", **found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of a stub upstream. Of a list, the first whose conditions hold is used."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((int,), "a status", {"type": "integer"})
    method: str | None = option(
        "Only for this method.", default=None, pattern="[A-Z]+", shape="a method in capital letters"
    )
    path: str | None = option(
        "Only for this path, as the upstream gets it; with its query if one is written here. `/x/*` is a prefix.",
        default=None,
        pattern=r"/\S*",
        shape="a path such as /users/1",
    )
    times: int | None = option("Only so many times in a test.", default=None, minimum=1)
    status: int = option("The status.", default=200, minimum=200, maximum=599)
    headers: Mapping[str, str] = option("Headers.", default=_NONE)
    body: str | None = option("The body.", default=None, multiline=True)
    json: Any = option("The body as JSON; sets content-type unless it is given.", default=None)
    delay: timedelta = option("The time before the answer.", default=timedelta(0), minimum=0)

    @classmethod
    def short(cls, value: Any) -> Answer:
        """Return an answer of a status without body."""
        return cls(status=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for two bodies, and for headers that follow from the body."""
        yield from _one_body(self.body, self.json)
        yield from _framed(self.headers)
        if not 200 <= self.status <= 599:
            yield Mistake("not the status of a response", "write one from 200 to 599", value=self.status)

    def matches(self, method: str, path: str) -> bool:
        """True if it is for a request with this method and this path with its query."""
        if self.method not in (None, method):
            return False
        if self.path is None:
            return True
        found = path if "?" in self.path else path.partition("?")[0]
        return found.startswith(self.path[:-1]) if self.path.endswith("/*") else found == self.path

    @property
    def content(self) -> bytes:
        """The body."""
        return _content(self.body, self.json)


Answers = tuple[Answer, ...] | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a stub upstream is expected to get: the last request of it."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "the name of an upstream")
    name: str | None = option("The upstream.", default=None, refers="upstreams")
    times: int | None = option(
        "The number of its requests, with all retries; 0 for none.", default=None, minimum=0
    )
    method: str | None = option("The method.", default=None)
    path: str | None = option("The path; with its query if one is written here.", default=None)
    headers: Mapping[str, ValueMatch] = option("Conditions on headers.", default=_NONE)
    body: TextMatch | None = option("The body.", default=None)
    json: Any = option("Values of the JSON body; keys that are left out may have any value.", default=None)

    @classmethod
    def short(cls, value: Any) -> Asked:
        """Return any request of an upstream."""
        return cls(name=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for two bodies, and for conditions on no request."""
        yield from _one_body(self.body, self.json)
        if self.times == 0 and self != Asked(name=self.name, times=0):
            yield Mistake("there is no request to compare", "remove the other keys", path=("times",), value=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of a response, and of what the gateway does for it."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((int,), "a status", {"type": "integer"})
    status: int | None = option("The status.", default=None, minimum=200, maximum=599)
    headers: Mapping[str, ValueMatch] = option("Conditions on headers.", default=_NONE)
    body: TextMatch | None = option("The body.", default=None)
    json: Any = option("Values of the JSON body; keys that are left out may have any value.", default=None)
    route: Off | str | None = option(
        "The route that Envoy chose; `off` for none.", default=None, refers="routes"
    )
    reason: Off | str | None = option(
        "The reason of the gateway's own response; `off` for none.", default=None
    )
    upstream: Off | Asked | None = option("What an upstream got; `off` if none got a request.", default=None)

    @classmethod
    def short(cls, value: Any) -> Expected:
        """Return the expectation of a status."""
        return cls(status=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for two bodies, for no status and if nothing is expected."""
        yield from _one_body(self.body, self.json)
        if self.status is not None and not 200 <= self.status <= 599:
            yield Mistake("not the status of a response", "write one from 200 to 599", value=self.status)
        if self == Expected():
            yield Mistake("nothing is expected", "write a status, such as expect: 200")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request of a test, and what is expected of it."""

    after: timedelta = option(
        "Moves the clock of limits by so much before the request.", default=timedelta(0), minimum=0
    )
    request: Sent = option("The request.")
    times: int = option(
        "Sends it so many times; each response must be as expected.", default=1, minimum=1, maximum=1000
    )
    expect: Expected = option("What is expected.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test: one request, or steps one after another."""

    request: Sent | None = option("The request.", default=None)
    times: int = option(
        "Sends it so many times; each response must be as expected.", default=1, minimum=1, maximum=1000
    )
    expect: Expected | None = option("What is expected.", default=None)
    steps: tuple[Step, ...] = option("Several requests, one after another.", default=(), narrows=True)
    upstreams: Mapping[str, Answers] = option(
        "Answers of upstreams for this test, before those of the file.", default=_NONE, refers="upstreams"
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless there is either a request or steps."""
        if self.steps and (self.request is not None or self.expect is not None or self.times != 1):
            yield Mistake(
                "a test has one request, or steps", "move the request into the steps", path=("steps",)
            )
        elif not self.steps and self.request is None:
            yield Mistake("a test needs a request", "write request: GET /path")
        elif not self.steps and self.expect is None:
            yield Mistake("nothing is expected", "write a status, such as expect: 200")

    @property
    def all_steps(self) -> Iterator[tuple[Path, Step]]:
        """The steps with their paths in the test."""
        if self.request is not None and self.expect is not None:
            yield (), Step(request=self.request, times=self.times, expect=self.expect)
        for number, step in enumerate(self.steps):
            yield ("steps", number), step


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One file of tests."""

    upstreams: Mapping[str, Answers] = option(
        "What the stubs answer, by upstream; default: status 200 without a body.",
        default=_NONE,
        refers="upstreams",
    )
    tests: Mapping[str, Case] = option("Tests, by what they show.", narrows=True)


def listed(answers: Answers) -> tuple[Answer, ...]:
    """Return answers as a tuple."""
    return answers if isinstance(answers, tuple) else (answers,)


def _content(body: str | None, value: Any) -> bytes:
    return (body or "").encode() if value is None else json.dumps(value, ensure_ascii=False).encode()
