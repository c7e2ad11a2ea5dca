"""What a person writes in a file of tests: requests, what is expected of them, and what the stub upstreams answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from filters.grpc_transcoding.sources import DescriptorFile, ProtoFile
from filters.language import Mistake, Off, Path, Shorthand, option
from xds_server.gateway.model.routes import ValueMatch
from xds_server.testing.calls import Call, Called, Replied, Reply, framing_mistakes
from xds_server.testing.text_match import TextMatch

_NONE: Mapping[str, Any] = MappingProxyType({})
_URL = r"/\S*|https?://[^\s/?#@]+(?:[/?#]\S*)?"
_REQUEST = re.compile(rf"(?:([A-Z]+) +)?({_URL})")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request to the gateway."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a method and a URL, such as GET /api/users/1")
    method: str = option("The method.", default="GET", pattern="[A-Z]+", shape="a method in capital letters")
    url: str = option(
        "The URL; a path alone goes to the first listener. Of a gRPC call, only listener and host count, and it may be "
        "left out.",
        default="",
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
    http2: bool = option(
        "Send it over HTTP/2, as gRPC always is: by ALPN, or without TLS as it is.", default=False
    )
    grpc: Call | None = option("Call a gRPC method; `headers` are its metadata.", default=None)

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
        yield from framing_mistakes(self.headers)
        if self.grpc is not None:
            yield from self._check_call()
        elif not self.url:
            yield Mistake("'url' is missing", "add 'url', or 'grpc' for a gRPC call")

    def _check_call(self) -> Iterator[Mistake]:
        if self.url and urlsplit(self.url)[2:] not in (("", "", ""), ("/", "", "")):
            message = "the path of a gRPC call is that of its method"
            yield Mistake(message, "write scheme and host only", path=("url",), value=self.url)
        for key, value in (("body", self.body), ("json", self.json)):
            if value is not None:
                yield Mistake("a gRPC call has a message", "write grpc: {method: …, message: …}", path=(key,))
        if self.method != "GET":
            yield Mistake("a gRPC call is always POST", "remove it", path=("method",), value=self.method)

    @property
    def verb(self) -> str:
        """The HTTP method."""
        return self.method if self.grpc is None else "POST"

    @property
    def target(self) -> str:
        """The URL, with the path of a gRPC call. It is a path if the first listener is meant."""
        return self.url if self.grpc is None else f"{self.url.rstrip('/')}/{self.grpc.method}"

    @property
    def content(self) -> bytes:
        """The body. That of a gRPC call depends on the type of its message."""
        return _content(self.body, self.json)

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers by name in lower case, with the content type of a JSON body or of gRPC."""
        found = {name.lower(): value for name, value in self.headers.items()}
        if self.grpc is not None and self.grpc.web:
            return {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", **found}
        if self.grpc is not None:
            return {"content-type": "application/grpc", "te": "trailers", **found}
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
    grpc: Reply | None = option("The answer to a gRPC call; a status as text, or a message.", default=None)
    delay: timedelta = option("The time before the answer.", default=timedelta(0), minimum=0)

    @classmethod
    def short(cls, value: Any) -> Answer:
        """Return an answer of a status without body."""
        return cls(status=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for two bodies, and for headers that follow from the body."""
        yield from _one_body(self.body, self.json)
        yield from framing_mistakes(self.headers)
        if not 200 <= self.status <= 599:
            yield Mistake("not the status of a response", "write one from 200 to 599", value=self.status)
        given = (self.method, self.path, self.body, self.json, None if self.status == 200 else self.status)
        if self.grpc is not None:
            for key, value in zip(("method", "path", "body", "json", "status"), given, strict=True):
                if value is not None:
                    yield Mistake(f"'{key}' is not for gRPC", "write it below 'grpc'", path=(key,))

    def matches(self, method: str, path: str) -> bool:
        """True if it is for a request with this method and this path with its query."""
        if self.grpc is not None:
            return self.grpc.method is None or path == f"/{self.grpc.method}"
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
    grpc: Called | None = option(
        "The gRPC call; keys of the message that are left out may have any value.", default=None
    )

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
    grpc: Replied | None = option("What is expected of a gRPC call: a status as text, or more.", default=None)
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
    protos: tuple[ProtoFile, ...] = option(
        "`.proto` files in the gateway's folder with methods that no policy of the gateway has.", default=()
    )
    descriptors: DescriptorFile | None = option("A descriptor set with such methods.", default=None)
    tests: Mapping[str, Case] = option("Tests, by what they show.", narrows=True)


def listed(answers: Answers) -> tuple[Answer, ...]:
    """Return answers as a tuple."""
    return answers if isinstance(answers, tuple) else (answers,)


def _content(body: str | None, value: Any) -> bytes:
    return (body or "").encode() if value is None else json.dumps(value, ensure_ascii=False).encode()
