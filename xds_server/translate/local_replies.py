"""Error responses of the gateway itself: problem+json (RFC 9457) with a named reason and the request id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf import struct_pb2

from filters import POLICIES, fault
from filters.error_overrides import ErrorOverride
from filters.framing import BODYLESS
from filters.policy import header
from filters.reasons import (
    BAD_REQUEST,
    BY_STATUS,
    GRPC_STATUS,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    OTHER,
    REASON_HEADER,
    REASONS,
    REJECTED,
    Reason,
    details,
    details_begin,
    grpc_status,
    route_begins,
)
from xds_server.translate.protobuf import packed, uint32

CONTENT_TYPE = "application/problem+json"
_OWN_ANSWER = (
    "response.code < 400 && !("
    + details(fault.ABORTED)
    + ") || "
    + details("direct_response")
    + " "
    + " ".join(f"&& !{route_begins(one)}" for one in (METHOD_NOT_ALLOWED, NOT_FOUND, BAD_REQUEST, REJECTED))
    + "".join(f" || {one}" for policy in POLICIES for one in policy.answers)
)


def local_reply_config(overrides: Mapping[str, ErrorOverride]) -> hcm_pb2.LocalReplyConfig:
    """Return all reasons as mappers; the first match wins. Responses of `respond` and `redirect` do not change."""
    own = hcm_pb2.ResponseMapper(filter=_cel(_OWN_ANSWER), headers_to_add=[_grpc_status(None)])
    config = hcm_pb2.LocalReplyConfig(mappers=[_without_body(), _to_the_root(), own])
    for reason in _reasons():
        override = overrides.get(reason.name)
        config.mappers.append(_usual(reason) if override is None else _mapper(reason, override))
    return config


def _to_the_root() -> hcm_pb2.ResponseMapper:
    """Return the redirect to the plain form of a path of only slashes: Envoy's is `//`, which has an empty host."""
    when = details_begin("path_normalization_failed") + " && response.headers['location'].startsWith('//')"
    query = "%CEL(request.query == '' ? '' : '?')%%CEL(request.query)%"
    return hcm_pb2.ResponseMapper(filter=_cel(when), headers_to_add=[header("location", f"/{query}")])


@cache
def _usual(reason: Reason) -> hcm_pb2.ResponseMapper:
    """Return the mapper of a reason, to be copied. It is cached, because listeners are built at every change."""
    return _mapper(reason, None)


def _reasons() -> Iterator[Reason]:
    for policy in POLICIES:
        yield from policy.reasons
    yield from REASONS
    for status, name, title in BY_STATUS:
        yield Reason(name=name, title=title, status=status, when=f"response.code == {status}")
    yield Reason(name=OTHER[0], title=OTHER[1], when="true")


def _without_body() -> hcm_pb2.ResponseMapper:
    """Remove bodies of statuses without a body: a client would read them as the next response (RFC 9112 section 6.3)."""
    aborted = f"%CEL({details(fault.ABORTED)} ? '{fault.REASON.name}' : '')%"
    mapper = hcm_pb2.ResponseMapper(
        filter=_cel(" || ".join(f"response.code == {status}" for status in sorted(BODYLESS))),
        headers_to_add=[header(REASON_HEADER, aborted)],
    )
    mapper.body_format_override.text_format_source.inline_string = ""
    return mapper


def _cel(expression: str) -> accesslog_pb2.AccessLogFilter:
    extension = accesslog_pb2.ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=packed(cel_pb2.ExpressionFilter(expression=expression)),
    )
    return accesslog_pb2.AccessLogFilter(extension_filter=extension)


def _mapper(reason: Reason, override: ErrorOverride | None) -> hcm_pb2.ResponseMapper:
    own_body = reason.own_body and override is None
    override = override or ErrorOverride()
    status = override.status or reason.status
    mapper = hcm_pb2.ResponseMapper(
        filter=_cel(reason.when),
        headers_to_add=[
            header(REASON_HEADER, reason.name),
            _grpc_status(status),
            *_challenge(reason),
            *_headers(override),
        ],
    )
    if not own_body:
        mapper.body_format_override.CopyFrom(_format(_body(reason, override, status)))
    if status is not None:
        mapper.status_code.CopyFrom(uint32(status))
    return mapper


def _grpc_status(status: int | None) -> base_pb2.HeaderValueOption:
    """Return the status for clients of gRPC and gRPC-Web. Other clients get none: Envoy omits an empty value."""
    grpc = "request.headers['content-type'].startsWith('application/grpc')"
    # the transcoder gives requests of REST clients that type too, and this header
    asked = f"{grpc} && !('x-envoy-original-method' in request.headers)"
    return header(GRPC_STATUS, grpc_status(asked, status))


def _challenge(reason: Reason) -> Iterator[base_pb2.HeaderValueOption]:
    if reason.challenge is not None:
        yield header("www-authenticate", reason.challenge)


def _headers(override: ErrorOverride) -> Iterator[base_pb2.HeaderValueOption]:
    for name, value in sorted(override.headers.items()):
        yield header(name, value.replace("%", "%%"))


def _body(reason: Reason, override: ErrorOverride, status: int | None) -> Mapping[str, Any]:
    if override.body is not None:
        return {key: _escaped(one) for key, one in override.body.items()}
    body = {
        "type": _escaped(override.type or "about:blank"),
        "title": _escaped(override.title or reason.title),
        "status": status if status is not None else "%RESPONSE_CODE%",
        "reason": reason.name,
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    detail = reason.detail if override.detail is None else override.detail
    if detail is not None:
        body["detail"] = _escaped(detail)
    elif reason.detail_from_body:
        body["detail"] = "%LOCAL_REPLY_BODY%"
    return body


def _escaped(value: Any) -> Any:
    """Return a user's text so that Envoy does not read it as a format."""
    if isinstance(value, str):
        return value.replace("%", "%%")
    if isinstance(value, Mapping):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list) else value


def _format(body: Mapping[str, Any]) -> substitution_format_string_pb2.SubstitutionFormatString:
    struct = struct_pb2.Struct()
    struct.update(body)
    return substitution_format_string_pb2.SubstitutionFormatString(
        json_format=struct, content_type=CONTENT_TYPE
    )
