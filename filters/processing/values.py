"""The request, the response, and what a processor returns, as plain frozen values."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from filters import framing
from filters.language.tokens import TOKEN
from filters.model.headers import Headers

_NAME = re.compile(TOKEN)
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
REJECTED = "processor_rejected"
"""The reason of an answer that names none."""
_FINAL = range(200, 600)
"""Statuses that end a request (RFC 9110 section 15)."""
Values = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `path` is normalized, without the query, with the digits of its escapes in upper case.

    `query` has the first value of each parameter, `query_string` is the whole query as the client sent it. `claims` are
    those of the verified token, `consumer` and `plan` those of the caller. `has_body` is true if a body follows.
    """

    method: str = "GET"
    scheme: str = "https"
    host: str = ""
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    query_string: str = ""
    path_params: Mapping[str, str] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    client_address: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)
    consumer: str | None = None
    plan: str | None = None
    authenticated_by: str | None = None
    route: str = ""
    id: str = ""
    has_body: bool = False

    def changed(self, change: Change) -> Request:
        """This request with the headers of a change."""
        return replace(self, headers=changed_headers(self.headers, change))


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response. `has_body` is true if a body follows. `headers` has only the joined values of repeated headers; `headers.get_all` has each of them."""

    status: int = 200
    headers: Headers = field(default_factory=Headers)
    has_body: bool = False

    def changed(self, change: Change) -> Response:
        """This response with the headers and the status of a change."""
        return replace(
            self, status=change.status or self.status, headers=changed_headers(self.headers, change)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Changes of a message, made by `change`. Raises ValueError or TypeError for invalid changes.

    `headers` replace those of the same name, `add` are added beside them, and `remove` are removed first. `status` is
    that of a response. `body` replaces the body, None keeps it. With `skip_body` the body passes unseen. `note` are values
    for the access log, which only processors of our own have.
    """

    headers: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    status: int | None = None
    body: bytes | None = None
    skip_body: bool = False
    note: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raise the error in the processor that made the change, so that the traceback shows it."""
        for name, value in (*self.headers, *self.add):
            _check(name, value)
        for name in self.remove:
            _check(name, "")
        if self.status is not None and self.status not in _FINAL:
            raise ValueError(f"{self.status!r} is not a status of HTTP from 200 to 599")
        if self.body is not None and not isinstance(self.body, bytes):
            raise TypeError(f"the body is {type(self.body).__name__} and not bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer to the client instead of the upstream's, made by `respond`. Raises ValueError or TypeError.

    A `body` of None is the gateway's own problem+json (RFC 9457). `reason` is the named reason of it. `note` is as for
    changes.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    reason: str = REJECTED
    note: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raise the error in the processor that made the answer."""
        if self.status not in _FINAL:
            raise ValueError(f"{self.status!r} is not a status of HTTP from 200 to 599")
        for name, value in self.headers:
            _check(name, value)
        if self.status in range(300, 400) and self.status != 304 and "location" not in dict(self.headers):
            raise ValueError(f'the status {self.status} needs headers={{"location": URL}}')


Outcome = bytes | Change | Answer | None
"""What a method returns: a new body, changes, an answer, or None to leave the message as it is."""
Outcomes = Outcome | Awaitable[Outcome]


def change(
    headers: Values = (),
    *,
    add: Values = (),
    remove: Iterable[str] = (),
    status: int | None = None,
    body: bytes | str | None = None,
    skip_body: bool = False,
) -> Change:
    """Change a message: set `headers`, `add` further ones, `remove` some, replace the `body` or the `status`.

    Only a method for a whole body or a chunk may replace it. `skip_body`, in a method for headers, lets the body pass
    without a call. Raises ValueError or TypeError.
    """
    return Change(
        headers=_pairs(headers),
        add=_pairs(add),
        remove=tuple(name.lower() for name in remove),
        status=status,
        body=body.encode() if isinstance(body, str) else body,
        skip_body=skip_body,
    )


def respond(status: int, body: bytes | str | Mapping[str, Any] | None = None, headers: Values = ()) -> Answer:
    """Answer the client at once. A mapping is sent as JSON. Without a body, the client gets problem+json.

    Raises ValueError or TypeError.
    """
    pairs = _pairs(headers)
    if isinstance(body, Mapping):
        body = json.dumps(dict(body))
        if "content-type" not in dict(pairs):
            pairs = (*pairs, ("content-type", "application/json"))
    return Answer(status=status, headers=pairs, body=body.encode() if isinstance(body, str) else body)


def changed_headers(headers: Headers, change: Change) -> Headers:
    """Headers with a change."""
    gone = {*change.remove, *(name for name, _ in change.headers)}
    kept = [(name, value) for name in headers if name not in gone for value in headers.get_all(name)]
    return Headers([*kept, *change.headers, *change.add])


def _pairs(values: Values) -> tuple[tuple[str, str], ...]:
    pairs = values.items() if isinstance(values, Mapping) else values
    return tuple((name.lower(), value) for name, value in pairs)


def _check(name: str, value: str) -> None:
    """Raise ValueError or TypeError for a header that a processor must not change."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"the header {name!r} is not a text")
    why = _fault(name)
    if why:
        raise ValueError(why)
    if not _VALUE.fullmatch(value):
        raise ValueError(f"the value of {name!r} has characters that no header may have")


@lru_cache(maxsize=1024)
def _fault(name: str) -> str:
    """The reason why a processor must not change a header, or nothing."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is not a header's name"
    if name.lower() in framing.HEADERS:
        return f"only Envoy sets {name!r}"
    return f"{name!r} is one of Envoy's own headers" if name.lower().startswith("x-envoy-") else ""
