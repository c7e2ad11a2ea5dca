"""Error responses of the gateway itself: problem+json (RFC 9457) with a named reason and the request id."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.type.matcher.v3 import metadata_pb2, string_pb2, value_pb2
from google.protobuf import struct_pb2

from filters import fault
from filters.error_overrides import ErrorOverride
from filters.framing import BODYLESS
from filters.log_fields import VERSION_METADATA
from filters.pipeline import POLICIES
from filters.policy import header
from filters.reasons import (
    BAD_REQUEST,
    BY_STATUS,
    GRPC_STATUS,
    GRPC_STATUSES,
    METHOD_NOT_ALLOWED,
    MISDIRECTED,
    MOCK_RESPONDED,
    NOT_FOUND,
    OTHER,
    REASON_HEADER,
    REASONS,
    REJECTED,
    UNKNOWN,
    WEB,
    WEB_CLIENT,
    Reason,
    details,
    details_begin,
    grpc_status,
    route_begins,
)
from xds_server.translate.log_filters import cel_filter
from xds_server.translate.protobuf import boolean, uint32

CONTENT_TYPE = "application/problem+json"
_VERSION = {key: f"%DYNAMIC_METADATA({VERSION_METADATA}:{key})%" for key in ("version", "commit")}
LOCAL_BODY = "%LOCAL_REPLY_BODY%"
"""The text of the filter that rejects. A header must not have it, because it may have several lines."""
_OWN_ROUTES = (METHOD_NOT_ALLOWED, NOT_FOUND, BAD_REQUEST, REJECTED, MISDIRECTED)
_OWN_ANSWER = (
    "response.code < 400 && !("
    + details(fault.ABORTED)
    + ") || "
    + details("direct_response")
    + " "
    + " ".join(f"&& !{route_begins(one)}" for one in _OWN_ROUTES)
    + " || "
    + details(MOCK_RESPONDED)
)


def local_reply_config(
    overrides: Mapping[str, ErrorOverride], *, with_version: bool = False
) -> hcm_pb2.LocalReplyConfig:
    """Return all reasons as mappers; the first match wins. `with_version` adds the version of the gateway to problems.

    Responses of `respond` and `redirect` do not change, but for clients of gRPC-Web. Each reason has a mapper for them,
    because an HTTP status other than 200 hides the gRPC status from them (PROTOCOL-WEB.md of gRPC).
    """
    own = hcm_pb2.ResponseMapper(filter=cel_filter(_OWN_ANSWER), headers_to_add=[_grpc_status(None)])
    config = hcm_pb2.LocalReplyConfig(
        mappers=[*_answers_of_filters(), _without_body(), _to_the_root(), _own_to_web(), own]
    )
    for reason in _reasons():
        override = overrides.get(reason.name)
        if override is None:
            config.mappers.extend(_usual(reason, with_version))
        else:
            config.mappers.extend(_mappers(reason, override, with_version))
    return config


def _answers_of_filters() -> Iterator[hcm_pb2.ResponseMapper]:
    """Yield mappers that change nothing. They come first and need no expression, because a hit of the cache has to be cheap."""
    for namespace, key in (one for policy in POLICIES for one in policy.answers):
        marked = value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(exact="true"))
        path = [metadata_pb2.MetadataMatcher.PathSegment(key=key)]
        matcher = metadata_pb2.MetadataMatcher(filter=namespace, path=path, value=marked)
        found = accesslog_pb2.MetadataFilter(matcher=matcher, match_if_key_not_found=boolean(False))
        yield hcm_pb2.ResponseMapper(filter=accesslog_pb2.AccessLogFilter(metadata_filter=found))


def _to_the_root() -> hcm_pb2.ResponseMapper:
    """Return the redirect to the plain form of a path of only slashes: Envoy's is `//`, which has an empty host."""
    when = details_begin("path_normalization_failed") + " && response.headers['location'].startsWith('//')"
    query = "%CEL(request.query == '' ? '' : '?')%%CEL(request.query)%"
    return hcm_pb2.ResponseMapper(filter=cel_filter(when), headers_to_add=[header("location", f"/{query}")])


@cache
def _usual(reason: Reason, with_version: bool) -> tuple[hcm_pb2.ResponseMapper, ...]:
    """Return the mappers of a reason, to be copied. They are cached, because listeners are built at every change."""
    return _mappers(reason, None, with_version)


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
        filter=cel_filter(" || ".join(f"response.code == {status}" for status in sorted(BODYLESS))),
        headers_to_add=[header(REASON_HEADER, aborted)],
    )
    mapper.body_format_override.text_format_source.inline_string = ""
    return mapper


def _mappers(
    reason: Reason, override: ErrorOverride | None, with_version: bool
) -> tuple[hcm_pb2.ResponseMapper, ...]:
    return _to_web(reason, override or ErrorOverride()), _mapper(reason, override, with_version)


def _to_web(reason: Reason, override: ErrorOverride) -> hcm_pb2.ResponseMapper:
    """Return the mapper of a reason for clients of gRPC-Web: headers with the gRPC status, and trailers in the body.

    The problem is the message, as for clients of gRPC.
    """
    status = override.status or reason.status
    message = header("grpc-message", _message(_body(reason, override, status)))
    more = (message, *_reason_headers(reason), *_headers(override))
    return _web(cel_filter(reason.when), status, header(REASON_HEADER, reason.name), *more)


def _own_to_web() -> hcm_pb2.ResponseMapper:
    """Return the mapper of `respond` for clients of gRPC-Web. Statuses below 400 stay as they are."""
    when = cel_filter(f"response.code >= 400 && ({_OWN_ANSWER})")
    return _web(when, None, header("grpc-message", "HTTP status %RESPONSE_CODE%"))


def _web(
    when: accesslog_pb2.AccessLogFilter, status: int | None, *headers: base_pb2.HeaderValueOption
) -> hcm_pb2.ResponseMapper:
    """Return a mapper for clients of gRPC-Web. Their requests have the type of gRPC behind the filter grpc_web."""
    common = (header("content-type", _WEB_TYPE), header(GRPC_STATUS, _web_status(status)))
    mapper = hcm_pb2.ResponseMapper(
        filter=accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=[_IS_WEB, when])),
        headers_to_add=[*headers, *common],
        status_code=uint32(200),
    )
    mapper.body_format_override.text_format_source.inline_string = _TRAILERS
    return mapper


_TEXT = "'accept' in request.headers && request.headers['accept'].startsWith('application/grpc-web-text')"
"""True for clients that read base64, by the header that decides it in Envoy's filter grpc_web."""
_BEFORE = "request.headers['content-type'].startsWith('application/grpc-web')"
"""True if the filter grpc_web has not seen the request. Behind it the request has the type of gRPC."""
_WEB_TYPE = f"%CEL({_BEFORE} && {_TEXT} ? 'application/grpc-web-text+proto' : 'application/grpc-web+proto')%"


def _trailers() -> str:
    """Return the body with the gRPC status of the response headers, in Envoy's format.

    gRPC-Web frames trailers as a message with the flag 128 (PROTOCOL-WEB.md), and its text form has base64 of that.
    Without a body Envoy would remove the content type.
    """
    frames = {}
    for status in sorted({*GRPC_STATUSES.values(), UNKNOWN}):
        trailer = f"grpc-status:{status}\r\n".encode()
        frames[status] = b"\x80" + len(trailer).to_bytes(4, "big") + trailer
    as_bytes = ", ".join(f"'{status}': b'{_hexadecimal(frame)}'" for status, frame in frames.items())
    as_text = ", ".join(
        f"'{status}': '{base64.b64encode(frame).decode()}'" for status, frame in frames.items()
    )
    status = f"response.headers['{GRPC_STATUS}']"
    # the filter grpc_web cannot encode a frame of trailers as text; for such a client, the headers have to do
    text = f"({_BEFORE} ? {{{as_text}}}[{status}] : '')"
    return f"%CEL({_TEXT} ? {text} : {{{as_bytes}}}[{status}])%"


def _hexadecimal(frame: bytes) -> str:
    return "".join(f"\\x{one:02x}" for one in frame)


_TRAILERS = _trailers()


def _message(body: Mapping[str, Any]) -> str:
    """Return a body as a gRPC message (PROTOCOL-HTTP2.md) in Envoy's format: ASCII, with %25 for a percent sign."""
    fixed = {key: value for key, value in body.items() if value != LOCAL_BODY}
    text = json.dumps(fixed, separators=(",", ":"), sort_keys=True).replace("%%", "%%25")
    return text.replace('"%RESPONSE_CODE%"', "%RESPONSE_CODE%")


def _is_web() -> accesslog_pb2.AccessLogFilter:
    type_ = route_components_pb2.HeaderMatcher(name="content-type")
    type_.string_match.prefix = "application/grpc-web"
    by_header = accesslog_pb2.HeaderFilter(header=type_)
    value = value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(exact=WEB))
    matcher = metadata_pb2.MetadataMatcher(filter=WEB_CLIENT, value=value)
    matcher.path.add(key="type")
    behind = accesslog_pb2.MetadataFilter(matcher=matcher, match_if_key_not_found=boolean(False))
    either = [
        accesslog_pb2.AccessLogFilter(header_filter=by_header),
        accesslog_pb2.AccessLogFilter(metadata_filter=behind),
    ]
    return accesslog_pb2.AccessLogFilter(or_filter=accesslog_pb2.OrFilter(filters=either))


_IS_WEB = _is_web()


def _web_status(status: int | None) -> str:
    """Return the gRPC status for an HTTP status in Envoy's format. If it is None, that of the response counts."""
    if status is not None:
        return GRPC_STATUSES.get(status, UNKNOWN)
    table = ", ".join(f"{code}: '{number}'" for code, number in GRPC_STATUSES.items())
    return f"%CEL(response.code in {{{table}}} ? {{{table}}}[response.code] : '{UNKNOWN}')%"


def _mapper(reason: Reason, override: ErrorOverride | None, with_version: bool) -> hcm_pb2.ResponseMapper:
    own_body = reason.own_body and override is None
    override = override or ErrorOverride()
    status = override.status or reason.status
    mapper = hcm_pb2.ResponseMapper(
        filter=cel_filter(reason.when),
        headers_to_add=[
            header(REASON_HEADER, reason.name),
            _grpc_status(status),
            *_reason_headers(reason),
            *_headers(override),
        ],
    )
    if not own_body:
        body = _body(reason, override, status)
        mapper.body_format_override.CopyFrom(
            _format(body if override.body or not with_version else body | _VERSION)
        )
        mapper.body_format_override.omit_empty_values = with_version
    if status is not None:
        mapper.status_code.CopyFrom(uint32(status))
    return mapper


def _grpc_status(status: int | None) -> base_pb2.HeaderValueOption:
    """Return the status for clients of gRPC. Other clients get none: Envoy omits an empty value."""
    grpc = "request.headers['content-type'].startsWith('application/grpc')"
    # the transcoder gives requests of REST clients that type too, and this header
    asked = f"{grpc} && !('x-envoy-original-method' in request.headers)"
    return header(GRPC_STATUS, grpc_status(asked, status))


def _reason_headers(reason: Reason) -> Iterator[base_pb2.HeaderValueOption]:
    if reason.challenge is not None:
        yield header("www-authenticate", reason.challenge)
    if reason.retry_after is not None:
        yield header("retry-after", str(reason.retry_after))


def _headers(override: ErrorOverride) -> Iterator[base_pb2.HeaderValueOption]:
    for name, value in sorted(override.headers.items()):
        yield header(name, value.replace("%", "%%"))


def _body(reason: Reason, override: ErrorOverride, status: int | None) -> dict[str, Any]:
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
        body["detail"] = LOCAL_BODY
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
