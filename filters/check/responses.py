"""Serialized CheckResponses. Equal responses are built once."""

from __future__ import annotations

from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2

from filters import framing
from filters.check.api_keys import KeyOwner
from filters.ext_authz.decisions import Decision
from filters.ext_authz.functions import Failed, describe_error
from filters.ext_authz.names import FAILED, PROBLEM
from filters.identity import key_lookup, password_lookup
from filters.policy import header

OK, PERMISSION_DENIED = 0, 7
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""
MOST_DECISIONS = 512
"""Decisions whose responses are kept."""
LARGEST_KEPT = 4096
"""Bytes of the largest body of a denial that is kept."""
MOST_CONSUMERS = 16_384
_Pairs = tuple[tuple[str, str], ...]


def decided(decision: Decision) -> bytes:
    """The response for a policy's decision. Raises Failed if a response cannot contain the decision.

    Any other error would become a gRPC status, and with `on_error: allow` the request would pass.
    """
    try:
        return _decided(decision)
    except Exception as error:  # noqa: BLE001 - the values are a policy's own
        raise Failed(f"its decision cannot be sent: {describe_error(error)}") from None


def _decided(decision: Decision) -> bytes:
    headers = tuple(decision.headers.items())
    if decision.allowed is not True:
        kept = decision.body is None or len(decision.body) <= LARGEST_KEPT
        denied = _denied if kept else _denied.__wrapped__
        return denied(decision.status, headers, decision.body)
    parts = headers, decision.remove, tuple(decision.response_headers.items())
    if not decision.metadata:
        return _allowed(*parts)
    response = _passes(*parts)
    response.dynamic_metadata.update(decision.metadata)
    return response.SerializeToString()


@lru_cache(MOST_DECISIONS)
def _allowed(headers: _Pairs, remove: tuple[str, ...], response_headers: _Pairs) -> bytes:
    return _passes(headers, remove, response_headers).SerializeToString()


def _passes(
    headers: _Pairs, remove: tuple[str, ...], response_headers: _Pairs
) -> external_auth_pb2.CheckResponse:
    response = external_auth_pb2.CheckResponse()
    response.status.code = OK
    response.ok_response.headers.extend(_headers(headers))
    response.ok_response.headers_to_remove.extend(
        name for name in remove if name.lower() not in framing.HEADERS
    )
    response.ok_response.response_headers_to_add.extend(_headers(response_headers))
    return response


def _headers(headers: _Pairs) -> list[base_pb2.HeaderValueOption]:
    """The headers, without those that frame a message: Envoy does not filter headers that are added to responses."""
    return [header(name.lower(), value) for name, value in headers if name.lower() not in framing.HEADERS]


@lru_cache(MOST_DECISIONS)
def _denied(status: int, headers: _Pairs, body: bytes | None) -> bytes:
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.denied_response.status.code = status  # type: ignore[assignment] # checked by deny()
    response.denied_response.headers.extend(_headers(headers))
    if body is None:
        response.dynamic_metadata.update({PROBLEM: True})
    else:
        response.denied_response.body = body.decode("utf-8", "replace")
    return response.SerializeToString()


@lru_cache(MOST_DECISIONS)
def failure(message: str = "") -> bytes:
    """The denial for a policy that failed.

    It is no gRPC status, so the request never passes, whatever `on_error` is.
    """
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.status.message = message[:200]
    response.denied_response.status.code = 503  # type: ignore[assignment]
    response.dynamic_metadata.update({FAILED: True})
    return response.SerializeToString()


@lru_cache(MOST_CONSUMERS)
def key(owner: KeyOwner | None) -> bytes:
    """The owner of a key. The response always allows; the identity script decides, with the other credentials."""
    response = external_auth_pb2.CheckResponse(ok_response=external_auth_pb2.OkHttpResponse())
    answer = response.dynamic_metadata.fields[key_lookup.EXTENSION].struct_value.fields
    if owner is None:
        answer["unknown"].bool_value = True
        return response.SerializeToString()
    answer["consumer"].string_value = owner.consumer
    if owner.plan:
        answer["plan"].string_value = owner.plan
    if owner.not_after:
        answer["not_after"].number_value = owner.not_after
    if owner.apis is not None:
        answer["subscriber"].bool_value = True
        answer["covered"].bool_value = owner.covered
    return response.SerializeToString()


@lru_cache(MOST_CONSUMERS)
def password(user: str | None) -> bytes:
    """The user of a password. The response always allows, as for keys."""
    response = external_auth_pb2.CheckResponse(ok_response=external_auth_pb2.OkHttpResponse())
    answer = response.dynamic_metadata.fields[password_lookup.EXTENSION].struct_value.fields
    if user is None:
        answer["wrong"].bool_value = True
    else:
        answer["user"].string_value = user
    return response.SerializeToString()
