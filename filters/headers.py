"""request_headers and response_headers: set, add and remove headers of requests and of responses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from envoy.config.core.v3 import base_pb2

from filters import framing
from filters.language import Mistake, Path, option
from filters.language.tokens import TOKEN
from filters.operators import FORMAT, check_operators
from filters.policy import Context, Policy, RoutePart, Stage, header

_EMPTY: Mapping[str, str] = MappingProxyType({})
"""A header's name (RFC 9110 section 5.1), as a regular expression."""
LONGEST_VALUE = 16384
"""Bytes of one value: Envoy accepts no longer value."""
_NAME = re.compile(TOKEN)
_PLAIN_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutation:
    """Headers to change. Values may contain Envoy's command operators; a percent sign is written %%."""

    set: Mapping[str, str] = option("Headers to set: they replace those of the same name.", default=_EMPTY)
    add: Mapping[str, str] = option("Headers to add to those of the same name.", default=_EMPTY)
    remove: tuple[str, ...] = option("Names of headers to remove.", default=())

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of names (RFC 9110 section 5.1) and of values."""
        for number, name in enumerate(self.remove):
            yield from _check_name(name, ("remove", number))
        for key, headers in (("set", self.set), ("add", self.add)):
            for name, value in headers.items():
                yield from _check_name(name, (key, name))
                if not FORMAT.fullmatch(value):
                    remedy = "write %% for a percent sign, or an operator such as %REQ(X-REQUEST-ID)%"
                    yield Mistake("not a header's value", remedy, path=(key, name), value=value)
                else:
                    yield from _check_length(value, (key, name))
                    yield from check_operators(value, (key, name))


def check_plain_headers(headers: Mapping[str, str]) -> Iterator[Mistake]:
    """Yield mistakes of headers under the key ``headers``, whose values contain no operators."""
    for name, value in headers.items():
        yield from _check_name(name, ("headers", name))
        if not _PLAIN_VALUE.fullmatch(value):
            remedy = "leave out line ends and control characters"
            yield Mistake("not a header's value", remedy, path=("headers", name), value=value)
        yield from _check_length(value, ("headers", name))


def _check_length(value: str, path: Path) -> Iterator[Mistake]:
    if len(value.encode()) > LONGEST_VALUE:
        yield Mistake(
            f"a header's value has at most {LONGEST_VALUE} bytes", "shorten it", path=path, value=value
        )


def _check_name(name: str, path: Path) -> Iterator[Mistake]:
    if not _NAME.fullmatch(name):
        yield Mistake("not a header's name", "use letters, digits and -", path=path, value=name)
    elif (fault := framing.check(name, path)) is not None:
        yield fault


def request_changes(mutation: HeaderMutation) -> RoutePart:
    """Return the changes of request headers as a part of a route."""
    return RoutePart(request_headers=_options(mutation), request_headers_to_remove=_removed(mutation))


def response_changes(mutation: HeaderMutation) -> RoutePart:
    """Return the changes of response headers as a part of a route."""
    return RoutePart(response_headers=_options(mutation), response_headers_to_remove=_removed(mutation))


def _removed(mutation: HeaderMutation) -> tuple[str, ...]:
    return tuple(name.lower() for name in mutation.remove)


def _options(mutation: HeaderMutation) -> tuple[base_pb2.HeaderValueOption, ...]:
    replaced = [header(name.lower(), value) for name, value in sorted(mutation.set.items())]
    added = [header(name.lower(), value, append=True) for name, value in sorted(mutation.add.items())]
    return (*replaced, *added)


class RequestHeaders(Policy[HeaderMutation]):
    """Compiled into the route's mutations of request headers, before the request goes to the upstream."""

    key = "request_headers"
    stage = Stage.TRANSFORM
    settings = HeaderMutation

    def on_route(self, settings: HeaderMutation, context: Context) -> RoutePart:
        return request_changes(settings)


class ResponseHeaders(Policy[HeaderMutation]):
    """Compiled into the route's mutations of response headers, before the response goes to the client."""

    key = "response_headers"
    stage = Stage.RESPOND
    settings = HeaderMutation

    def on_route(self, settings: HeaderMutation, context: Context) -> RoutePart:
        return response_changes(settings)
