"""Limits that a Check decides: what it says of a request as the entries of a descriptor, and the answer for Envoy.

The entries are those that Envoy's rate limit filter would send for the same request, so that both ways count as one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache, lru_cache, partial
from ipaddress import ip_network

from envoy.service.auth.v3 import external_auth_pb2
from google.protobuf import struct_pb2

from filters.ext_authz.answers import PERMISSION_DENIED
from filters.ext_authz.asked import Attributes, client_address
from filters.ext_authz.decisions import Decision
from filters.identity import NAMESPACE
from filters.policy import header
from filters.rate_limit import descriptors, responses, within
from filters.rate_limit.answer import Told
from filters.rate_limit.service import RateLimits
from filters.unary import Undoable, mapped

log = logging.getLogger(__name__)

Answer = bytes | Undoable
"""A serialized CheckResponse; it can be undone where it took a slot."""
_NOTHING = struct_pb2.Struct()


def entries(route: within.Asked, asked: Attributes, decision: Decision) -> dict[str, str]:
    """What is counted by; `decision` has changed the request by now."""
    http = asked.request.http
    identity = asked.metadata_context.filter_metadata.get(NAMESPACE, _NOTHING).fields
    found = {
        descriptors.ROUTE: asked.context_extensions.get("route", ""),
        descriptors.ADDRESS: _network(client_address(asked)),
        descriptors.REQUEST_ID: http.headers.get("x-request-id", ""),
    }
    if route.plans:
        found[descriptors.PLANS] = "true"
    for name in (descriptors.CONSUMER, descriptors.PLAN):
        if name in identity:
            found[name] = _text(identity[name])
    for by in route.looks_at:
        value = _looked_at(by, http, identity, decision)
        if value is not None:
            found[by] = value
    return found


def _looked_at(
    by: str,
    http: Attributes.HttpRequest,
    identity: Mapping[str, struct_pb2.Value],
    decision: Decision,
) -> str | None:
    kind, _, name = by.partition(":")
    if kind == "header":
        return _header(name.lower(), http, decision)
    if kind == "claim" and "claims" in identity:
        return _claim(name, identity["claims"])
    return None


def _header(name: str, http: Attributes.HttpRequest, decision: Decision) -> str | None:
    """The value that the upstream would see: what a policy removes is removed after what it sets."""
    if any(one.lower() == name for one in decision.remove):
        return None
    for own, value in decision.headers.items():
        if own.lower() == name:
            return value
    return http.host if name == "host" else http.headers.get(name)


def _claim(name: str, claims: struct_pb2.Value) -> str | None:
    """A claim by its own name, or else by a dotted path into nested claims."""
    for path in ((name,), tuple(part for part in name.split(".") if part)):
        at: struct_pb2.Value | None = claims
        for part in path:
            at = at.struct_value.fields[part] if at is not None and part in at.struct_value.fields else None
        if at is not None:
            return _text(at)
    return None


def _text(value: struct_pb2.Value) -> str:
    """As Envoy writes the value of a CEL expression."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return f"{value.number_value:g}"
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    return {"list_value": "CelList value", "struct_value": "CelMap value"}.get(kind or "", "NULL")


@lru_cache(maxsize=65536)
def _network(address: str) -> str:
    """As Envoy writes a masked address: IPv6 by /64, of which one client has all."""
    if ":" not in address:
        return f"{address}/32" if address else ""
    return str(ip_network((address.partition("%")[0], 64), strict=False))


def decide(
    counting: RateLimits | None, asked: Attributes, decision: Decision, passed: bytes
) -> Answer | Awaitable[Answer]:
    """The answer to a request that a policy lets pass with `passed`, now that limits decide too."""
    route = within.read(asked.context_extensions[within.EXTENSION])
    found = entries(route, asked, decision)
    if route.lease:
        found[descriptors.LEASE] = secrets.token_hex(8)
    lease = found.get(descriptors.LEASE, "")
    try:
        if counting is None:
            raise ValueError("this policy server has no limits")
        told = counting.before(route.rules, route.styles, found)
    except Exception as error:  # noqa: BLE001 - whatever hinders counting, the limits say what it means
        return _answer(decision, passed, lease, _uncounted(route, error))
    if isinstance(told, Told):
        return _answer(decision, passed, lease, told)
    answer = partial(_answer, decision, passed, lease)
    return mapped(told, answer) if isinstance(told, Undoable) else _later(route, told, answer)


async def _later(
    route: within.Asked, told: Awaitable[Told | Undoable], answer: Callable[[Told | None], bytes]
) -> Answer:
    try:
        async with asyncio.timeout(within.TIME.total_seconds()):
            found = await told
    except Exception as error:  # noqa: BLE001 - as above
        return answer(_uncounted(route, error))
    result: Answer = mapped(found, answer)
    return result


def _uncounted(route: within.Asked, error: Exception) -> Told | None:
    """What is told where nobody counts; None where such requests are refused."""
    log.warning("a request is not counted: %s", error or type(error).__name__)
    return None if route.strict else Told(True, [])


def _answer(decision: Decision, passed: bytes, lease: str, told: Told | None) -> bytes:
    """What Envoy is told. Serialized messages that follow each other are read as one."""
    if told is None:
        return _unavailable()
    headers = told.headers
    if decision.response_headers:
        own = {name.lower() for name in decision.response_headers}
        headers = [one for one in headers if one[0] not in own]
    if not told.admitted:
        return _refused(told, headers, decision)
    found = passed + responses.checked(headers)
    if lease:
        more = external_auth_pb2.CheckResponse()
        more.dynamic_metadata.fields[descriptors.TOLD_LEASE].string_value = lease
        found += more.SerializeToString()
    return found


def _refused(told: Told, headers: Iterable[tuple[str, str]], decision: Decision) -> bytes:
    """A rejection. It has what the policy adds to responses and to the metadata, as if it came later."""
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    denied = response.denied_response
    denied.status.code = 429  # type: ignore[assignment]
    denied.body = told.body.decode()
    denied.headers.extend(header(*one) for one in headers)
    denied.headers.extend(header(name.lower(), value) for name, value in decision.response_headers.items())
    if decision.metadata:
        response.dynamic_metadata.update(decision.metadata)
    response.dynamic_metadata.fields[within.LIMITED].string_value = told.reason
    return response.SerializeToString()


@cache
def _unavailable() -> bytes:
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.denied_response.status.code = 503  # type: ignore[assignment]
    response.dynamic_metadata.fields[within.UNCOUNTED].bool_value = True
    return response.SerializeToString()
