"""Actions of a route: redirect, respond, rewrite, mirror, and the backends among which it splits its requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from filters.framing import BODYLESS
from filters.headers import HeaderMutation, check_plain_headers
from filters.language import Mistake, Percent, Shorthand, option
from xds_server.gateway.model import regex, substitutions

_EMPTY: Mapping[str, Any] = MappingProxyType({})


def check_regex(pattern: str) -> Iterator[Mistake]:
    """Yield the mistake of an RE2 under the key ``regex``."""
    try:
        regex.check(pattern)
    except Mistake as mistake:
        yield Mistake(mistake.message, mistake.remedy, path=("regex",), value=pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Redirect the client to another address."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a URL")
    to: str | None = option("A whole URL (`https://docs.example.com/x`) or a path (`/x`).", default=None)
    scheme: Literal["http", "https"] | None = option("Only the scheme changes.", default=None)
    host: str | None = option(
        "Only the host changes.", default=None, pattern=r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", shape="a host"
    )
    port: int | None = option("Only the port changes.", default=None, minimum=1, maximum=65535)
    path: str | None = option(
        "The path; on a `/*` route, `/new/*` keeps the rest of the path; `{name}` is a segment of a template.",
        default=None,
        pattern=r"/[!-~]*",
        shape="a path such as /new/*",
    )
    status: Literal[301, 302, 303, 307, 308] = option("The status.", default=302)
    strip_query: bool = option("Remove the query.", default=False)

    @property
    def new_path(self) -> str:
        """The path of the target, or "" if the path does not change."""
        return self.path or re.sub(r"^https?://[^/]*", "", self.to or "")

    @classmethod
    def short(cls, value: Any) -> Redirect:
        """Return a redirect to a URL. Raises Mistake."""
        redirect = cls(to=value)
        for mistake in redirect.check():
            raise mistake
        return redirect

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of the target."""
        parts = (self.scheme, self.host, self.port, self.path)
        if (self.to is None) == all(part is None for part in parts):
            yield Mistake("either 'to' or some of scheme, host, port and path", "write to: https://host/path")
        if self.to is not None and not re.fullmatch(r"(https?://[^/?#\s]+)?(/[!-~]*)?", self.to):
            yield Mistake("not a URL and not a path", "write https://host/path or /path", value=self.to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Respond from the gateway itself."""

    status: int = option("The status.", default=200, minimum=200, maximum=599)
    body: str | Mapping[str, Any] | None = option(
        "Text, or a mapping that is sent as JSON.", default=None, multiline=True
    )
    content_type: str | None = option("Default: text/plain, or application/json for a mapping.", default=None)
    headers: Mapping[str, str] = option("More response headers.", default=_EMPTY)

    @property
    def location(self) -> str | None:
        """The value of the location header, or None."""
        return next((value for name, value in self.headers.items() if name.lower() == "location"), None)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of the headers, and between headers, status and body."""
        yield from check_plain_headers(self.headers)
        if self.status in BODYLESS:
            for key in ("body", "content_type"):
                if getattr(self, key) is not None:
                    message = f"a response with the status {self.status} has no body"
                    yield Mistake(message, f"remove '{key}', or write status: 200", path=(key,))
        elif 300 <= self.status <= 399 and not (self.location or "").strip():
            message = f"a response with the status {self.status} needs an address to go to"
            remedy = "write redirect: {to: URL}, or headers: {location: URL}"
            yield Mistake(message, remedy, path=("status",), value=self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Change the request that the upstream gets."""

    path: str | None = option(
        "`/v1/*` appends the rest of the path after the route's `/*` to /v1; `{name}` is a segment of a template.",
        default=None,
        pattern=r"/\S*",
        shape="a path such as /v1/*",
    )
    regex: str | None = option("Instead of `path`: this RE2 in the path is replaced …", default=None)
    substitution: str | None = option("… by this; \\1 is the first group.", default=None)
    host: str | None = option("The Host header; `auto` takes the endpoint's host name.", default=None)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys."""
        if (self.regex is None) != (self.substitution is None):
            yield Mistake("'regex' and 'substitution' go together", "add the other one")
        if self.path is not None and self.regex is not None:
            yield Mistake("'path' and 'regex' exclude each other", "keep one")
        if self.path is not None and ("?" in self.path or "#" in self.path):
            yield Mistake(
                "a path must not have ? or #",
                "the query of the request goes on as it is; remove it",
                path=("path",),
                value=self.path,
            )
        if self.regex == "":
            message, remedy = (
                "an empty expression matches between all characters",
                "write ^ for the beginning",
            )
            yield Mistake(message, remedy, path=("regex",), value=self.regex)
        elif self.regex is not None:
            wrong = list(check_regex(self.regex))
            yield from wrong
            if not wrong and self.substitution is not None:
                for one in substitutions.check(self.regex, self.substitution):
                    yield Mistake(one.message, one.remedy, path=("substitution",), value=self.substitution)
        if self.path is self.regex is self.host is None:
            yield Mistake("nothing to rewrite", "add 'path' or 'host'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Send a copy to another upstream and discard its response."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "an upstream")
    upstream: str = option("The upstream that gets the copy.", refers="upstreams")
    percent: Percent = option("Share of the requests.", default=Percent(100))

    @classmethod
    def short(cls, value: Any) -> Mirror:
        """Return a mirror to an upstream."""
        return cls(upstream=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One share of a route's requests: where it goes, and what changes for this share alone."""

    upstream: str | None = option("Forward to this upstream.", default=None, refers="upstreams")
    redirect: Redirect | None = option("Instead: redirect the client.", default=None)
    respond: Respond | None = option("Instead: respond from the gateway itself.", default=None)
    weight: int = option("Its share, relative to the other weights.", default=1, minimum=0, maximum=1_000_000)
    rewrite: Rewrite | None = option("Change the request, in place of the route's `rewrite`.", default=None)
    mirror: Mirror | tuple[Mirror, ...] | None = option(
        "Send copies to other upstreams, in addition to the route's.", default=None
    )
    request_headers: HeaderMutation | None = option("Change headers towards this upstream.", default=None)
    response_headers: HeaderMutation | None = option("Change headers of its responses.", default=None)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """All mirrors of this share."""
        return as_tuple(self.mirror)

    @property
    def same_action(self) -> bool:
        """True if Envoy's weighted clusters can express it: the upstream, its host and headers."""
        path = self.rewrite is not None and (self.rewrite.path or self.rewrite.regex) is not None
        return self.upstream is not None and not path and not self.mirrors

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys of one share."""
        actions = [key for key in ("upstream", "redirect", "respond") if getattr(self, key) is not None]
        if len(actions) != 1:
            found = "several: " + ", ".join(actions) if actions else "none"
            remedy = "keep one" if actions else "add one"
            yield Mistake("a backend has one of upstream, redirect and respond", remedy, value=found)
        elif self.upstream is None:
            for key in ("rewrite", "mirror", "request_headers"):
                if getattr(self, key) is not None:
                    message = f"'{key}' needs an upstream, and this backend has '{actions[0]}'"
                    yield Mistake(message, "remove it", path=(key,))


def as_tuple(mirror: Mirror | tuple[Mirror, ...] | None) -> tuple[Mirror, ...]:
    """Return all mirrors of a key `mirror`."""
    return mirror if isinstance(mirror, tuple) else (mirror,) if mirror is not None else ()
