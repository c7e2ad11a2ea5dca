"""Requests of GraphQL over HTTP: what a client sent, read from the method, the query and the body.

https://graphql.github.io/graphql-over-http/draft/
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import jiter

from filters.graphql import errors
from filters.graphql.errors import refused

RESPONSE_JSON = "application/graphql-response+json"
JSON = "application/json"
MULTIPART = "multipart/mixed"
EVENTS = "text/event-stream"
MEDIA_TYPES = (RESPONSE_JSON, JSON, MULTIPART, EVENTS)
VARY = "accept"
"""The header that chooses the media type of every response."""
NOT_STORED: Mapping[str, str] = {"cache-control": "no-store", "vary": VARY}
"""The headers of a response that nobody may store, because it comes in parts."""
_METHODS = "GET, POST"
_MOST_PARAMETERS = 50


class HttpError(Exception):
    """A request that is no well-formed request of GraphQL over HTTP."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request. The names of `headers` are in lower case; `query` is what follows the question mark."""

    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A response. A `body` that comes in parts is an iterator, which must be closed."""

    status: int
    headers: Mapping[str, str]
    body: bytes | AsyncGenerator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One operation that a client asks for. `sha256` is the hash by which it names a persisted document."""

    document: str | None
    name: str | None
    variables: Mapping[str, Any]
    sha256: str | None


def read(request: HttpRequest, most: int) -> Asked | list[Asked]:
    """What a request asks for, a list if it sent a list. `most` is the size of the largest body in bytes. Raises HttpError."""
    if request.method == "GET":
        return _asked(_of_query(request.query))
    if request.method != "POST":
        raise HttpError(405, "Only GET and POST are allowed.", {"allow": _METHODS})
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise HttpError(415, f"The content-type must be {JSON}.", {"accept-post": JSON})
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(415, "The body must have no content-encoding.", {"accept-encoding": "identity"})
    if len(request.body) > most:
        raise HttpError(413, f"The body is larger than {most} bytes.")
    try:
        value = jiter.from_json(request.body, allow_inf_nan=False, cache_mode="keys")
    except ValueError:
        raise HttpError(
            400, "The body is not JSON, is nested too deep, or has a number with too many digits."
        ) from None
    if isinstance(value, list):
        if not value:
            raise HttpError(400, "The list has no operation.")
        return [_asked(_object(one)) for one in value]
    return _asked(_object(value))


def _object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise HttpError(400, "The body must be an object with 'query'.")


def _of_query(text: str) -> Mapping[str, Any]:
    """The parameters of a GET. `variables` and `extensions` are JSON."""
    try:
        found: dict[str, Any] = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS))
    except ValueError:
        raise HttpError(400, "There are too many parameters.") from None
    for key in ("variables", "extensions"):
        if key in found:
            try:
                found[key] = jiter.from_json(found[key].encode(), allow_inf_nan=False) if found[key] else None
            except ValueError:
                raise HttpError(
                    400, f"'{key}' is not JSON, is nested too deep, or has a number with too many digits."
                ) from None
    return {key: None if value == "" else value for key, value in found.items()}


def _asked(value: Mapping[str, Any]) -> Asked:
    for key, kind, word in (
        ("query", str, "a text"),
        ("operationName", str, "a text"),
        ("documentId", str, "a text"),
        ("variables", dict, "an object"),
        ("extensions", dict, "an object"),
    ):
        if value.get(key) is not None and not isinstance(value[key], kind):
            raise HttpError(400, f"'{key}' must be {word}.")
    sha256 = _hash(value)
    if value.get("query") is None and sha256 is None:
        raise HttpError(400, "'query' is missing.")
    variables = value.get("variables") or {}
    return Asked(
        document=value.get("query"), name=value.get("operationName"), variables=variables, sha256=sha256
    )


def _hash(value: Mapping[str, Any]) -> str | None:
    """The hash that names a persisted document: `documentId`, or the extension of Apollo's clients."""
    document = value.get("documentId")
    if document is not None:
        return str(document).removeprefix("sha256:").lower()
    persisted = (value.get("extensions") or {}).get("persistedQuery")
    if not isinstance(persisted, dict):
        return None
    found = persisted.get("sha256Hash")
    if persisted.get("version") != 1 or not isinstance(found, str):
        raise HttpError(400, "'persistedQuery' must have version 1 and sha256Hash.")
    return found.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistedDocuments:
    """Documents that clients name by the SHA-256 of their text. With `only`, no other document is executed."""

    by_hash: Mapping[str, str]
    only: bool = False

    @classmethod
    def of(cls, texts: tuple[str, ...], *, only: bool = False) -> PersistedDocuments:
        """The documents with these texts."""
        return cls(by_hash={sha256_of(one): one for one in texts}, only=only)

    def document(self, asked: Asked) -> str:
        """The text of the document that a client asks for. Raises Refused."""
        if asked.document is None:
            found = self.by_hash.get(asked.sha256 or "")
            if found is None:
                raise refused(errors.NOT_PERSISTED, "PersistedQueryNotFound")
            return found
        if not self.only and asked.sha256 is None:
            return asked.document
        found = sha256_of(asked.document)
        if asked.sha256 is not None and asked.sha256 != found:
            raise refused(errors.BAD_USER_INPUT, "The hash is not that of the query.")
        if self.only and found not in self.by_hash:
            raise refused(errors.ONLY_PERSISTED, "Only persisted queries are allowed.")
        return asked.document


def sha256_of(text: str) -> str:
    """The name of a persisted document."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def media_type(accept: str | None) -> str | None:
    """The media type of the response to an Accept header, None if none of ours is accepted (RFC 9110 section 12.5.1).

    A client that names a `deferSpec` wants parts of an older form, so it gets one whole response.
    """
    if accept is None or not accept.strip():
        return JSON
    best: tuple[float, int, str] | None = None
    for number, written in enumerate(accept.split(",")):
        kind, _, parameters = written.partition(";")
        quality = _quality(parameters)
        found = None if "deferspec" in parameters.lower() else _ours(kind.strip().lower())
        if found is not None and quality > 0 and (best is None or quality > best[0]):
            best = (quality, number, found)
    return best[2] if best is not None else None


def _ours(kind: str) -> str | None:
    if kind in MEDIA_TYPES:
        return kind
    return JSON if kind in ("*/*", "application/*") else None


def _quality(parameters: str) -> float:
    for one in parameters.split(";"):
        name, _, value = one.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1
