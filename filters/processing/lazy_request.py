"""The request and the response of Envoy's messages. Fields of a request are parsed on first access."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import struct_pb2

from filters.model.headers import Headers
from filters.model.identity import NAMESPACE
from filters.model.path_params import normalized, path_params
from filters.processing.values import Change, Request, Response, changed_headers
from filters.reasons import DETAILS

_PSEUDO = (":authority", ":method", ":path", ":protocol", ":scheme", ":status")
VIA_UPSTREAM, BY_SCRIPT = "via_upstream", "lua_response"
"""Envoy's details of a response that an upstream has sent, and of one that a script has made."""


class _LazyRequest(Request):
    """A request whose fields are parsed on first access."""

    __slots__ = ("_before", "_changes", "_message", "_regex")
    _message: pb.ProcessingRequest
    _regex: str
    _before: Request
    _changes: Change | None

    def __getattr__(self, name: str) -> Any:
        """The value of a field. Python calls this only for a field without a value."""
        read = _READERS.get(name)
        if read is None:
            raise AttributeError(name)
        value = read(self)
        object.__setattr__(self, name, value)
        return value

    def changed(self, change: Change) -> Request:
        """This request with other headers. Its other fields stay those of the client's request."""
        return _new(self._message, self.route, self._regex, self, change)

    def __reduce__(self) -> tuple[Callable[..., Request], tuple[Mapping[str, Any]]]:
        """A copy is an ordinary request."""
        return _whole, (_fields(self),)


def _fields(request: Request) -> Mapping[str, Any]:
    return {name: getattr(request, name) for name in (*_READERS, "route")}


def _whole(fields: Mapping[str, Any]) -> Request:
    return Request(**fields)


def request(message: pb.ProcessingRequest, route: str, regex: str) -> Request:
    """The request of a message with its headers. `regex` is the route's path with its names."""
    return _new(message, route, regex, None, None)


def _new(
    message: pb.ProcessingRequest, route: str, regex: str, before: Request | None, changes: Change | None
) -> Request:
    one = object.__new__(_LazyRequest)
    assign = object.__setattr__
    assign(one, "_message", message)
    assign(one, "_regex", regex)
    assign(one, "route", route)
    assign(one, "_before", before)
    assign(one, "_changes", changes)
    return one


def _all_headers(request: _LazyRequest) -> Headers:
    """The headers of a request, perhaps after a change."""
    changes = request._changes  # noqa: SLF001 - of this module
    if changes is not None:
        return changed_headers(request._before.headers, changes)  # noqa: SLF001 - as above
    return _headers(request._message.request_headers)  # noqa: SLF001 - as above


def _headers(message: pb.HttpHeaders) -> Headers:
    """The headers of a message. Envoy writes their names in lower case."""
    sent = message.headers.headers
    try:
        values = {one.key: one.raw_value.decode() for one in sent}
    except UnicodeDecodeError:
        values = {}
    if len(values) == len(sent):
        for name in _PSEUDO:
            values.pop(name, None)
        return Headers(lower=values)
    return Headers([(one.key, _text(one.raw_value)) for one in sent if one.key[0] != ":"])


def of_upstream(message: pb.ProcessingRequest) -> bool:
    """True if a response is an upstream's, perhaps a stored one, and not an answer of Envoy itself."""
    for attributes in message.attributes.values():
        details = attributes.fields[DETAILS].string_value
        if details == VIA_UPSTREAM or (details == BY_SCRIPT and _is_stored(message.response_headers)):
            return True
    return False


def _is_stored(message: pb.HttpHeaders) -> bool:
    """True if the cache's script serves a stored response. The header is the cache's own (RFC 9211)."""
    return any(
        one.key == "cache-status" and one.raw_value.startswith(b"gateway; hit")
        for one in message.headers.headers
    )


def response(message: pb.HttpHeaders) -> Response:
    """The response whose headers these are."""
    status = 200
    for one in message.headers.headers:
        if one.key == ":status":
            status = int(one.raw_value)
            break
    return Response(status=status, headers=_headers(message), has_body=not message.end_of_stream)


def _text(value: bytes) -> str:
    """A header's value. Values are bytes, and mostly UTF-8 or ISO 8859-1 (RFC 9110 section 5.5)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _header(name: str) -> Callable[[_LazyRequest], str]:
    def read(request: _LazyRequest) -> str:
        for one in request._message.request_headers.headers.headers:  # noqa: SLF001 - of this module
            if one.key == name:
                return _text(one.raw_value)
        return ""

    return read


_target = _header(":path")


def _query_string(request: Request) -> str:
    return _target(request).partition("?")[2]  # type: ignore[arg-type]


def _identity(name: str, default: Any = None) -> Callable[[_LazyRequest], Any]:
    """A reader of the caller's identity metadata."""

    def read(request: _LazyRequest) -> Any:
        known = request._message.metadata_context.filter_metadata  # noqa: SLF001 - of this module
        fields = known[NAMESPACE].fields if NAMESPACE in known else {}
        return _value(fields[name]) if name in fields else default

    return read


def _value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _value(one) for name, one in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_value(one) for one in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


_READERS: Mapping[str, Callable[[_LazyRequest], Any]] = {
    "method": _header(":method"),
    "scheme": _header(":scheme"),
    "host": _header(":authority"),
    "path": lambda one: normalized(_target(one).partition("?")[0]),
    "query": lambda one: dict(reversed(parse_qsl(one.query_string, keep_blank_values=True))),
    "query_string": _query_string,
    "path_params": lambda one: path_params(one._regex, one.path),  # noqa: SLF001 - of this module
    "headers": _all_headers,
    "client_address": _header("x-envoy-external-address"),
    "claims": _identity("claims", {}),
    "consumer": _identity("consumer"),
    "plan": _identity("plan"),
    "authenticated_by": _identity("method"),
    "id": _header("x-request-id"),
    "has_body": lambda one: not one._message.request_headers.end_of_stream,  # noqa: SLF001 - of this module
}
