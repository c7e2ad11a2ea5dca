"""The request and the decision of a policy in Python, as plain frozen values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.language.tokens import TOKEN
from filters.model.headers import Headers

_NAME = re.compile(TOKEN)
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_FINAL = range(200, 600)
"""Statuses that end a request (RFC 9110 section 15).

Envoy passes on all of them, even those without a name in its API.
"""
_REDIRECTS = frozenset(range(300, 400)) - {304}
"""Statuses that need a `location` (RFC 9110 section 15.4). Without one Envoy would send the request's own address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The client's certificate. `principal` is its first URI name, else its first DNS name, else the subject."""

    principal: str
    certificate: str = field(default="", repr=False)
    """PEM."""


@dataclass(frozen=True, kw_only=True)
class GrpcCall:
    """A call of a gRPC method, also by a REST client. `method` is ``package.Service/Method``.

    `message` has all fields by their names in the .proto file, with their default values if they are not set, and None if a
    message or an `optional` field is not set. Enumerators are names. It is None for a stream of messages of the client.
    """

    method: str
    message: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `path` is normalized, without the query, with the digits of its escapes in upper case.

    `query` has the first value of each parameter, `query_string` is the whole query as the client sent it. `claims` are
    those of the verified token, `consumer` and `plan` those of the caller, `peer` is the verified client certificate.
    `body` is None unless the policy has `body`; with `partial` it may be truncated. `grpc` is None unless the route has
    `grpc_transcoding` with `for_policies`, and if the request calls no method.
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
    peer: Peer | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    consumer: str | None = None
    plan: str | None = None
    authenticated_by: str | None = None
    route: str = ""
    id: str = ""
    body: bytes | None = None
    grpc: GrpcCall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision of a policy, made by `allow` and `deny`. Raises ValueError or TypeError for an invalid decision.

    If it allows, `headers` are set on the request to the upstream, `remove` are removed from it, and
    `response_headers` are set on the response. If it denies, `headers` are those of the response, and a `body` of None
    means the gateway's own problem+json (RFC 9457). `metadata` is added to Envoy's dynamic metadata.
    """

    allowed: bool
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    response_headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise the error in the policy that made the decision, so that the traceback shows the policy."""
        if not isinstance(self.allowed, bool):
            raise TypeError(f"{self.allowed!r} is neither True nor False")
        if self.status not in _FINAL:
            raise ValueError(f"{self.status!r} is not a status of HTTP from 200 to 599")
        if self.body is not None and not isinstance(self.body, bytes):
            raise TypeError("the body is not bytes")
        for headers in (self.headers, self.response_headers):
            if headers:
                _check(headers)
        if not self.allowed and self.status in _REDIRECTS and not _location(self.headers):
            raise ValueError(
                f"a denial with the status {self.status} needs an address to go to: "
                f'write headers={{"location": URL}}'
            )
        if self.remove:
            _check(dict.fromkeys(self.remove, ""))


def allow(
    headers: Mapping[str, str] | None = None,
    *,
    remove: Iterable[str] = (),
    response_headers: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Decision:
    """Let the request pass. Raises ValueError for an invalid header."""
    return Decision(
        allowed=True,
        headers=dict(headers) if headers else {},
        remove=tuple(remove),
        response_headers=dict(response_headers) if response_headers else {},
        metadata=dict(metadata) if metadata else {},
    )


def deny(
    status: int = 403,
    *,
    headers: Mapping[str, str] | None = None,
    body: str | bytes | Mapping[str, Any] | None = None,
) -> Decision:
    """Deny the request. A mapping as the body is sent as JSON. Raises ValueError for an invalid status or header.

    A status from 300 to 399, except 304, needs a ``location`` header.
    """
    if status not in _FINAL or status < 300:
        raise ValueError(f"{status} is not a status that a denial can have: from 300 to 599")
    answer = dict(headers or {})
    if isinstance(body, Mapping):
        body = json.dumps(dict(body), ensure_ascii=False)
        if not any(name.lower() == "content-type" for name in answer):
            answer["content-type"] = "application/json"
    content = body.encode() if isinstance(body, str) else body
    return Decision(allowed=False, status=status, headers=answer, body=content)


def _location(headers: Mapping[str, str]) -> str:
    """The value of the `location` header, or an empty text."""
    return next((value.strip() for name, value in headers.items() if name.lower() == "location"), "")


def _check(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header's name")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} is not text, or has control characters")
