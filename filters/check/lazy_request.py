"""A Request whose fields are parsed from the attributes of a Check on first access."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from envoy.service.auth.v3 import attribute_context_pb2
from google.protobuf import struct_pb2

from filters.check import grpc_calls
from filters.ext_authz.decisions import GrpcCall, Peer, Request
from filters.grpc_transcoding.messages import Methods
from filters.model.headers import Headers
from filters.model.identity import NAMESPACE
from filters.model.path_params import normalized, path_params
from filters.unverified_certificates import FILTER, UNVERIFIED

Attributes = attribute_context_pb2.AttributeContext


class _LazyRequest(Request):
    """A request whose fields are parsed on first access."""

    __slots__ = ("_attributes", "_methods")
    _attributes: Attributes
    _methods: Methods | None

    def __getattr__(self, name: str) -> Any:
        """The value of a field. Python calls this only for a field without a value."""
        read = _READERS.get(name)
        if read is not None:
            value = read(self._attributes)
        elif name == "grpc":
            value = grpc_calls.call_of(self._attributes, self._methods)
        else:
            raise AttributeError(name)
        object.__setattr__(self, name, value)
        return value

    def __reduce__(self) -> tuple[Callable[..., Request], tuple[Mapping[str, Any]]]:
        """A copy is an ordinary request."""
        call = None if self.grpc is None else GrpcCall(method=self.grpc.method, message=self.grpc.message)
        return _whole, ({**{name: getattr(self, name) for name in _READERS}, "grpc": call},)


def request(attributes: Attributes, methods: Methods | None = None) -> Request:
    """The request of these attributes. `methods` are those of its route, if policies get its messages."""
    one = object.__new__(_LazyRequest)
    object.__setattr__(one, "_attributes", attributes)
    object.__setattr__(one, "_methods", methods)
    return one


def _whole(fields: Mapping[str, Any]) -> Request:
    return Request(**fields)


def identity(attributes: Attributes, name: str) -> Any:
    """A value of the caller's identity metadata, or None."""
    known = attributes.metadata_context.filter_metadata
    fields = known[NAMESPACE].fields if NAMESPACE in known else {}
    return _value(fields[name]) if name in fields else None


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


def _path(attributes: Attributes) -> str:
    return normalized(attributes.request.http.path.partition("?")[0])


def _query_string(attributes: Attributes) -> str:
    return attributes.request.http.path.partition("?")[2]


def _query(attributes: Attributes) -> Mapping[str, str]:
    return dict(reversed(parse_qsl(_query_string(attributes), keep_blank_values=True)))


def _headers(attributes: Attributes) -> Headers:
    values = attributes.request.http.headers
    extensions = attributes.context_extensions
    if "headers" in extensions:
        return Headers({name: values[name] for name in extensions["headers"].split(",") if name in values})
    return Headers({name: values[name] for name in values})  # items() of protobuf's map takes twice as long


def _peer(attributes: Attributes) -> Peer | None:
    source = attributes.source
    unverified = attributes.metadata_context.filter_metadata.get(FILTER)
    if (not source.principal and not source.certificate) or (
        unverified is not None and UNVERIFIED in unverified.fields
    ):
        return None
    return Peer(principal=source.principal, certificate=unquote(source.certificate))


def client_address(attributes: Attributes, headers: Mapping[str, str]) -> str:
    """The client's address as Envoy determines it. Behind trusted proxies it is not the connection's address."""
    address = headers.get("x-envoy-external-address", "")
    return address or attributes.source.address.socket_address.address


def _body(attributes: Attributes) -> bytes | None:
    http = attributes.request.http
    return (http.raw_body or http.body.encode()) if "body" in attributes.context_extensions else None


def _path_params(attributes: Attributes) -> Mapping[str, str]:
    return path_params(attributes.context_extensions.get("path", ""), _path(attributes))


_READERS: Mapping[str, Callable[[Attributes], Any]] = {
    "method": lambda one: one.request.http.method,
    "scheme": lambda one: one.request.http.scheme,
    "host": lambda one: one.request.http.host,
    "path": _path,
    "query": _query,
    "query_string": _query_string,
    "path_params": _path_params,
    "headers": _headers,
    "client_address": lambda one: client_address(one, one.request.http.headers),
    "peer": _peer,
    "claims": lambda one: identity(one, "claims") or {},
    "consumer": lambda one: identity(one, "consumer"),
    "plan": lambda one: identity(one, "plan"),
    "authenticated_by": lambda one: identity(one, "method"),
    "route": lambda one: one.context_extensions.get("route", ""),
    "id": lambda one: one.request.http.headers.get("x-request-id", one.request.http.id),
    "body": _body,
}
