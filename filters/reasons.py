"""Named reasons of the responses that the gateway itself makes, recognized by Envoy's details of its local reply.

Each reason is a row. The first row that matches wins. The rows of policies come first, then REASONS, then BY_STATUS.
"""

from __future__ import annotations

from dataclasses import dataclass

DETAILS = "response.code_details"
REASON_HEADER = "x-gateway-reason"


METHOD_NOT_ALLOWED, NOT_FOUND, BAD_REQUEST, REJECTED, MISDIRECTED = "405/", "404/", "400/", "503/", "421/"
"""The beginnings of the names of routes with which the gateway answers itself."""


def route_begins(prefix: str) -> str:
    """A CEL condition: the name of the request's route begins with `prefix`."""
    return f"xds.route_name.startsWith('{prefix}')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason for which the gateway itself responds.

    `when` is a CEL expression over Envoy's attributes, mostly over `response.code_details`. `status` is the status
    that the client gets, None for the status that Envoy chose. `title` and `detail` are those of the problem
    (RFC 9457 section 3.1). With `detail_from_body` the detail is the text of Envoy's filter. `challenge` is a WWW-Authenticate for responses to which Envoy adds none. `retry_after` is a Retry-After in seconds (RFC 9110 section 10.2.3). `own_body` keeps
    the body that its author wrote, unless `errors:` overrides it.
    """

    name: str
    title: str
    when: str
    status: int | None = None
    challenge: str | None = None
    detail: str | None = None
    own_body: bool = False
    retry_after: int | None = None
    detail_from_body: bool = False


def details(text: str) -> str:
    """A CEL expression that is true if the response's details are this text."""
    return f"{DETAILS} == '{text}'"


def details_begin(*texts: str) -> str:
    """A CEL expression that is true if the response's details begin with one of these texts."""
    return " || ".join(f"{DETAILS}.startsWith('{text}')" for text in texts)


POLICY_REJECTED = "policy_rejected"
MOCK_RESPONDED, MOCK_UNANSWERED = "mock_responded", "mock_unanswered"
"""Envoy's details of a response from the document of a mock, which stays as it is, and the reason if there is none."""
GRPC_STATUS = "grpc-status"
WEB_CLIENT, WEB = "xds.grpc_web", "web"
"""The filter that notes clients of gRPC-Web, which is also the namespace of its note `type`, and the value of the note."""
GRPC_STATUSES = {
    400: "3",
    401: "16",
    403: "7",
    404: "12",
    405: "12",
    408: "4",
    413: "8",
    415: "3",
    429: "8",
    431: "8",
    500: "13",
    501: "12",
    502: "14",
    503: "14",
    504: "4",
}
"""The gRPC status for an HTTP status (grpc/doc/statuscodes.md).

Envoy's own table is for responses of servers that do not speak gRPC (grpc/doc/http-grpc-status-mapping.md). It maps 429
and 504 to UNAVAILABLE, so that clients retry, 400 to INTERNAL, and 405 and 413 to UNKNOWN.
"""


SOON = 1
"""Seconds after which a client may try again what was rejected because of load."""
UNKNOWN = "2"
"""The gRPC status for any other HTTP status."""


def grpc_status(condition: str, status: int | None = None) -> str:
    """The value of grpc-status in Envoy's format. It is empty if the CEL expression `condition` is false.

    The value follows from `status`, or from the status of the response. Envoy maps a status that is not in the table.
    """
    if status in GRPC_STATUSES:
        value = f"'{GRPC_STATUSES[status]}'"
    else:
        table = ", ".join(f"{code}: '{number}'" for code, number in GRPC_STATUSES.items())
        value = f"{{{table}}}[response.code]"
    return f"%CEL({condition} ? {value} : '')%"


REASONS: tuple[Reason, ...] = (
    Reason(
        name=POLICY_REJECTED,
        title="The gateway cannot apply a policy of this route",
        status=503,
        when=f"metadata.filter_metadata['xds.identity']['failure'] == '{POLICY_REJECTED}'",
    ),
    Reason(
        name="upgrade_required",
        title="A protocol upgrade is required",
        status=426,
        when=details_begin("low_version"),
        detail="Use HTTP/1.1 or later.",
    ),
    Reason(
        name="method_not_allowed",
        title="The method is not allowed for this path",
        status=405,
        when=route_begins(METHOD_NOT_ALLOWED) + " && " + details("direct_response"),
    ),
    Reason(
        name="route_rejected",
        title="The gateway cannot apply the configuration of this route",
        status=503,
        when=route_begins(REJECTED) + " && " + details("direct_response"),
    ),
    Reason(
        name="misdirected_request",
        title="This connection is not for this host",
        status=421,
        when=route_begins(MISDIRECTED) + " && " + details("direct_response"),
        detail="Send the request over a connection whose TLS server name is the host of the request.",
    ),
    Reason(
        name="not_found",
        title="No route matches this request",
        status=404,
        when=f"{details('route_not_found')} || ({route_begins(NOT_FOUND)} && {details('direct_response')})",
    ),
    Reason(
        name=MOCK_UNANSWERED,
        title="The mock has no response for this request",
        when=details(MOCK_UNANSWERED),
        own_body=True,
    ),
    Reason(
        name="no_upstream", title="The upstream does not exist", status=503, when=details("cluster_not_found")
    ),
    Reason(
        name="no_healthy_upstream",
        title="The upstream has no healthy endpoint",
        status=503,
        when=details_begin("no_healthy_upstream"),
    ),
    Reason(
        name="upstream_overflow",
        title="Too many requests to the upstream are in progress",
        status=503,
        when=details_begin("upstream_reset_before_response_started{overflow"),
        retry_after=SOON,
    ),
    Reason(
        name="upstream_overloaded",
        title="The upstream is overloaded",
        status=503,
        when=details("reached_concurrency_limit"),
        retry_after=SOON,
    ),
    Reason(
        name="upstream_unreachable",
        title="The gateway cannot connect to the upstream",
        status=503,
        when=details_begin(
            "upstream_reset_before_response_started{remote_connection_failure",
            "upstream_reset_before_response_started{local_connection_failure",
            "upstream_reset_before_response_started{connection_timeout",
        ),
    ),
    Reason(
        name="upstream_protocol_error",
        title="The upstream's response is malformed",
        status=502,
        when=details_begin("upstream_reset_before_response_started{protocol_error"),
    ),
    Reason(
        name="upstream_reset",
        title="The upstream ended the request without a response",
        status=502,
        when=details_begin("upstream_reset_before_response_started"),
    ),
    Reason(
        name="upstream_timeout",
        title="The upstream did not respond in time",
        status=504,
        when=details_begin(
            *("upstream_response_timeout", "upstream_per_try", "response_timeout", "upstream_max_stream"),
            "max_duration_timeout",
        ),
    ),
    Reason(
        name="request_timeout",
        title="The request did not arrive in time",
        status=408,
        when=details_begin("request_overall_timeout", "request_header_timeout"),
    ),
    Reason(
        name="stream_idle_timeout",
        title="The request was idle for too long",
        when=details_begin("stream_idle_timeout"),
    ),
    Reason(
        name="body_too_large",
        title="The request body is too large",
        status=413,
        when=details_begin("request_payload_too_large"),
    ),
    Reason(
        name="headers_too_large",
        title="The request headers are too large or too many",
        status=431,
        when="response.code == 431 || " + details_begin("http1.too_many_headers", "http2.too_many_headers"),
    ),
    Reason(
        name="overloaded",
        title="The gateway is overloaded",
        status=503,
        when=details_begin("overload"),
        retry_after=SOON,
    ),
    Reason(
        name="upgrade_not_allowed",
        title="The upgrade is not allowed for this path",
        status=403,
        when=details_begin("upgrade_failed"),
    ),
    Reason(
        name="bad_authority",
        title="The Host header is malformed or repeated",
        status=400,
        when=f"xds.route_name == '400/authority' && {details('direct_response')}",
    ),
    Reason(
        name="bad_path",
        title="The path is malformed",
        status=400,
        when=f"{details_begin('path_normalization_failed')} || "
        f"({route_begins(BAD_REQUEST)} && {details('direct_response')})",
    ),
)

BY_STATUS: tuple[tuple[int, str, str], ...] = (
    (400, "bad_request", "The request is malformed"),
    (401, "unauthorized", "Authentication is required"),
    (403, "forbidden", "Access is denied"),
    (404, "not_found", "The resource was not found"),
    (405, "method_not_allowed", "The method is not allowed for this path"),
    (408, "request_timeout", "The request did not arrive in time"),
    (413, "body_too_large", "The request body is too large"),
    (415, "unsupported_media_type", "The content type is not supported"),
    (421, "misdirected_request", "The connection is not for this host"),
    (426, "upgrade_required", "A protocol upgrade is required"),
    (429, "rate_limited", "Too many requests"),
    (431, "headers_too_large", "The request headers are too large or too many"),
    (500, "internal_error", "The gateway encountered an internal error"),
    (501, "not_implemented", "The gateway does not support this request"),
    (502, "bad_gateway", "The upstream failed"),
    (503, "unavailable", "The service is unavailable"),
    (504, "upstream_timeout", "The upstream did not respond in time"),
)
"""The reasons for responses of which only the status is known: status, name, title."""
OTHER = ("gateway_error", "The gateway could not complete the request")
"""The reason of any other status."""
