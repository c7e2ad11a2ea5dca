"""The gRPC call that a request makes, for policies: its message is read if a policy wants it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from envoy.service.auth.v3 import attribute_context_pb2

from filters.ext_authz.decisions import GrpcCall
from filters.grpc_transcoding.messages import Methods
from filters.grpc_transcoding.names import EXTENSION
from protos import rules_pb2

Attributes = attribute_context_pb2.AttributeContext


class MethodsUnknownError(LookupError):
    """The methods of the route have not arrived."""


class _LazyCall(GrpcCall):
    """A call whose message is read on first access. Reading raises NotAMessage."""

    def __init__(self, method: str, methods: Methods, attributes: Attributes) -> None:
        self.__dict__.update(method=method, _methods=methods, _attributes=attributes)

    @cached_property
    def message(self) -> Any:
        """The message, None for a stream of messages."""
        http = self._attributes.request.http
        path, _, query = http.path.partition("?")
        kind, body = http.headers.get("content-type", ""), http.raw_body or http.body.encode()
        return self._methods.message(http.method, path, query, kind, body)

    _methods: Methods
    _attributes: Attributes


def load(message: rules_pb2.GrpcMethods) -> Methods:
    """The methods of a rule."""
    return Methods(
        message.descriptors,
        colons_in_ids=message.colons_in_ids,
        ignore_query=message.ignore_query,
        ignore_unknown_fields=message.ignore_unknown_fields,
    )


def call_of(attributes: Attributes, methods: Methods | None) -> GrpcCall | None:
    """The call of a request, or None if it calls no method or its route tells none to policies. Raises MethodsUnknownError."""
    if EXTENSION not in attributes.context_extensions:
        return None
    if methods is None:
        raise MethodsUnknownError("the methods of the route are not here yet")
    http = attributes.request.http
    name = methods.name_of(http.method, http.path.partition("?")[0], http.headers.get("content-type", ""))
    return None if name is None else _LazyCall(name, methods, attributes)
