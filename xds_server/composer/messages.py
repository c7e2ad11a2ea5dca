"""Requests to the composer and its responses, and what Envoy says about the caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import msgspec

from filters import framing
from xds_server.composer.calls import Caller
from xds_server.translate.composer_entry import (
    CALLER_HEADER,
    CLIENT_ADDRESS_HEADER,
    TRUSTED_HEADERS,
    VERSION_HEADER,
)

_NOTHING: Mapping[str, Any] = {}
_OF_MESSAGE = frozenset(
    (
        *framing.HEADERS,
        *(
            "accept",
            "accept-encoding",
            "connection",
            "content-encoding",
            "content-language",
            "content-length",
        ),
        *(
            "content-location",
            "content-type",
            "expect",
            "host",
            "if-match",
            "if-modified-since",
            "if-none-match",
        ),
        *("if-range", "if-unmodified-since", "keep-alive", "proxy-connection", "range", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
        *TRUSTED_HEADERS,
        VERSION_HEADER,
    )
)
"""Headers of a request that are about its own body, its connection or its answer, so that calls do not have them."""
_OF_ENVOY = "x-envoy-"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request of a client, as Envoy hands it over. `path` includes the query; names of headers are in lower case.

    Texts of headers and of the path have one character for each byte (Latin-1).
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def id(self) -> str:
        """The request's id, "" if it has none."""
        return self.headers.get("x-request-id", "")

    @cached_property
    def caller(self) -> Mapping[str, Any]:
        """What authentication found: `consumer`, `plan`, `claims` and more (filters.model.identity.NAMESPACE)."""
        text = self.headers.get(CALLER_HEADER)
        if text is None:
            return _NOTHING
        found = msgspec.json.decode(text.encode("latin-1"))
        return found if isinstance(found, dict) else _NOTHING

    @property
    def gateway_version(self) -> Mapping[str, str]:
        """The version of the gateway and its commit, empty if problems do not have them."""
        text = self.headers.get(VERSION_HEADER)
        return _NOTHING if text is None else msgspec.json.decode(text.encode("latin-1"), type=dict[str, str])

    @property
    def client_address(self) -> str | None:
        """The address of the client, if the rule needs it."""
        return self.headers.get(CLIENT_ADDRESS_HEADER)

    @cached_property
    def for_calls(self) -> Mapping[str, str]:
        """The headers that calls hand on."""
        return {
            name: value
            for name, value in self.headers.items()
            if name not in _OF_MESSAGE and not name.startswith(_OF_ENVOY)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response of the composer. `outcome` is a label of metrics. A `body` in parts is an iterator, which is closed."""

    status: int
    headers: Iterable[tuple[str, str]] = ()
    body: bytes | AsyncGenerator[bytes] = b""
    outcome: str = field(default="complete")


class Composed(Protocol):
    """What the composer does for one route.

    `max_answer` is the size of the largest answer of a call in bytes, and `growth` the bytes of memory that
    each byte of an answer counts as.
    """

    @property
    def max_answer(self) -> int: ...

    @property
    def growth(self) -> int: ...

    async def respond(self, request: Request, caller: Caller) -> Response:
        """Answer a request by calls. Cancelling it cancels the calls."""
        ...
