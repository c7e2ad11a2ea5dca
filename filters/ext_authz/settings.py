"""What a user writes below ext_authz."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import ClassVar, Literal

from filters import framing
from filters.ext_authz.modules import imported
from filters.language import DataSource, Mistake, Shorthand, Size, option

_NO_CONTEXT: Mapping[str, str] = MappingProxyType({})
_LARGEST = 1 << 20
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*[A-Za-z0-9!#$%&'+.^_`|~-]")
_PATTERN = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]+\*?")
_EVERY = {
    "upstream_headers": "name the headers, or write how they begin: x-user-*",
    "client_headers": "leave client_headers out: the client sees all of them then",
}
"""The remedy for a * alone."""


_FUNCTION = "policies/hours.py:check"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFile(DataSource):
    """A Python file in the gateway's folder."""

    def referenced(self, content: bytes) -> Iterable[PythonFile]:
        """The files that it imports."""
        return (PythonFile(file=file) for file in imported(str(self.file), content))

    @staticmethod
    def split(value: str, what: str, example: str) -> tuple[str, str]:
        """The file and the name of ``FILE.py:NAME``. `what` is the kind of the name. Raises Mistake."""
        file, colon, name = value.rpartition(":")
        if not colon or not file.endswith(".py") or not name.isidentifier():
            raise Mistake(f"not a {what} of a file", f"write {example}")
        return file, name

    def not_a_file(self, what: str, example: str) -> Iterator[Mistake]:
        """Yield a mistake unless a file of Python is named. `what` needs the file."""
        if self.file is None or self.env is not None or self.inline is not None:
            yield Mistake(f"a {what} must be in a file", f"write {example}")
        elif not self.file.endswith(".py"):
            message, remedy = "a file of Python has a name that ends in .py", f"write {example}"
            yield Mistake(message, remedy, path=("file",), value=self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFunction(PythonFile):
    """A function of a file in the gateway's folder."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str,), "FILE.py:FUNCTION", {"type": "string", "pattern": r"^.+\.py:[A-Za-z_]\w*$"}
    )
    function: str = option("The function.", default="check")

    @classmethod
    def short(cls, value: str) -> PythonFunction:
        """The function of ``policies/hours.py:check``. Raises Mistake."""
        file, function = cls.split(value, "function", _FUNCTION)
        return cls(file=file, function=function)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless a file is named."""
        return self.not_a_file("policy", _FUNCTION)

    @property
    def rule_name(self) -> str:
        """The name of the rule that contains the function."""
        return f"{self.file}:{self.function}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpService:
    """A service that allows with 200 and denies with any other status (Traefik's forwardAuth, nginx's auth_request)."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "an upstream")
    upstream: str = option("The upstream that Envoy calls.", refers="upstreams")
    path: str = option(
        "A prefix of the request's path.", default="", pattern=r"(/\S*)?", shape="a path such as /auth"
    )
    upstream_headers: tuple[str, ...] = option(
        "Headers of its response that the upstream of the request gets, instead of the client's own of these names. "
        "A * after at least one character matches any rest, as in `x-user-*`.",
        default=(),
        narrows=True,
    )
    client_headers: tuple[str, ...] = option(
        "Headers of its denial that the client gets; a * as above. Default: all.", default=(), narrows=True
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each header that a response must not set."""
        for key in ("upstream_headers", "client_headers"):
            for number, name in enumerate(getattr(self, key)):
                if (framed := framing.check(name, (key, number))) is not None:
                    yield Mistake(framed.message, "remove it", path=framed.path, value=name)
                elif name == "*":
                    remedy = _EVERY[key]
                    yield Mistake("a * alone matches nothing", remedy, path=(key, number), value=name)
                elif not _PATTERN.fullmatch(name):
                    remedy = "write x-user, or x-user-* for every header that begins so"
                    yield Mistake("not a header's name", remedy, path=(key, number), value=name)

    @classmethod
    def short(cls, value: str) -> HttpService:
        """The service of an upstream's name."""
        return cls(upstream=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The part of the request's body that the policy or the service gets."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    max: Size = option("The size of the largest body.", default=Size(8192), minimum=1, maximum=_LARGEST)
    partial: bool = option("Send the beginning of a longer body instead of answering 413.", default=False)

    @classmethod
    def short(cls, value: bool) -> Body:
        """The settings that ``true`` stands for."""
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtAuthzSettings:
    """A policy or a service that decides, and the decision if it does not answer."""

    python: PythonFunction | None = option("A function: FILE.py:FUNCTION.", default=None)
    grpc: str | None = option(
        "An upstream that implements envoy.service.auth.v3.Authorization.", default=None, refers="upstreams"
    )
    http: HttpService | None = option("An upstream that allows with 200.", default=None)
    timeout: timedelta = option(
        "The time limit of a decision.", default=timedelta(milliseconds=200), minimum=0.001, maximum=60
    )
    on_error: Literal["deny", "allow"] = option(
        "The decision if no response comes in time: `deny` answers 503, `allow` lets the request pass. "
        "A policy in Python that raises an error never lets a request pass.",
        default="deny",
    )
    body: Body | None = option("Send the request's body.", default=None)
    headers: tuple[str, ...] | None = option(
        "The only headers that a function in Python gets. Fewer headers take less time. Default: all.",
        default=None,
    )
    context: Mapping[str, str] = option("Context extensions for a gRPC service.", default=_NO_CONTEXT)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of keys that do not go together."""
        if sum(one is not None for one in (self.python, self.grpc, self.http)) != 1:
            yield Mistake(
                "exactly one of 'python', 'grpc' and 'http' is needed", "write {python: policies/x.py:check}"
            )
        if self.headers is not None and self.python is None:
            yield Mistake("'headers' is for a function in Python", "remove it", path=("headers",))
        for name in self.headers or ():
            if not _HEADER.fullmatch(name):
                yield Mistake(f"'{name}' is not a header's name", "write a name", path=("headers",))
        if self.context and self.grpc is None:
            yield Mistake("'context' is for a gRPC service", "remove it", path=("context",))
