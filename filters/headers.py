"""request_headers and response_headers: set, add and remove headers, towards the upstream and the client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from envoy.config.core.v3 import base_pb2

from filters.language import Mistake, Path, option
from filters.policy import Context, Policy, RoutePart, Stage, header

_EMPTY: Mapping[str, str] = MappingProxyType({})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[^%\x00-\x08\x0a-\x1f\x7f]|%%|%[A-Z][A-Z0-9_]*(?:\([^()%]*\))?(?::\d+)?%)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutation:
    """Headers to change. Values may hold Envoy's command operators; a percent sign is written %%."""

    set: Mapping[str, str] = option("Put in place of what was there.", default=_EMPTY)
    add: Mapping[str, str] = option("Put beside what was there.", default=_EMPTY)
    remove: tuple[str, ...] = option("Take away.", default=())

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of names (RFC 9110 section 5.1) and of values."""
        for number, name in enumerate(self.remove):
            yield from _check_name(name, ("remove", number))
        for key, headers in (("set", self.set), ("add", self.add)):
            for name, value in headers.items():
                yield from _check_name(name, (key, name))
                if not _VALUE.fullmatch(value):
                    remedy = "write %% for a percent sign, or an operator such as %REQ(X-REQUEST-ID)%"
                    yield Mistake("not a header's value", remedy, path=(key, name), value=value)


def _check_name(name: str, path: Path) -> Iterator[Mistake]:
    if not _NAME.fullmatch(name):
        yield Mistake("not a header's name", "use letters, digits and -", path=path, value=name)
    elif name.lower() == "host":
        yield Mistake("'host' is no header to change", "use rewrite: {host: …}", path=path, value=name)


def _options(mutation: HeaderMutation) -> tuple[base_pb2.HeaderValueOption, ...]:
    replaced = [header(name.lower(), value) for name, value in sorted(mutation.set.items())]
    added = [header(name.lower(), value, append=True) for name, value in sorted(mutation.add.items())]
    return (*replaced, *added)


class RequestHeaders(Policy[HeaderMutation]):
    """Compiled into the route's header mutations towards the upstream."""

    key = "request_headers"
    stage = Stage.TRANSFORM
    settings = HeaderMutation

    def on_route(self, settings: HeaderMutation, context: Context) -> RoutePart:
        removed = tuple(name.lower() for name in settings.remove)
        return RoutePart(request_headers=_options(settings), request_headers_to_remove=removed)


class ResponseHeaders(Policy[HeaderMutation]):
    """Compiled into the route's header mutations towards the client."""

    key = "response_headers"
    stage = Stage.RESPOND
    settings = HeaderMutation

    def on_route(self, settings: HeaderMutation, context: Context) -> RoutePart:
        removed = tuple(name.lower() for name in settings.remove)
        return RoutePart(response_headers=_options(settings), response_headers_to_remove=removed)
