"""The access log: one line of JSON for each request. Its fields are declared here."""

from __future__ import annotations

from typing import NamedTuple

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from google.protobuf import struct_pb2

from filters.model.identity import NAMESPACE
from xds_server.translate.protobuf import packed


class Field(NamedTuple):
    """One field: its name, Envoy's command operator for its value, and its meaning.

    Fields without a value are left out.
    """

    name: str
    operator: str
    meaning: str


FIELDS = (
    Field("time", "%START_TIME%", "When the request began, in UTC (RFC 3339)."),
    Field("method", "%REQ(:METHOD)%", "HTTP method."),
    Field("host", "%REQ(:AUTHORITY)%", "Host that the client asked for."),
    Field("path", "%REQ(:PATH)%", "Path and query as the upstream received them."),
    Field("protocol", "%PROTOCOL%", "HTTP version of the client's connection, such as `HTTP/2`."),
    Field("status", "%RESPONSE_CODE%", "HTTP status of the response; 0 if the client left before it."),
    Field(
        "reason",
        "%RESP(X-GATEWAY-REASON)%",
        "Why the gateway itself responded: a name of [reasons](reasons.md).",
    ),
    Field("details", "%RESPONSE_CODE_DETAILS%", "Envoy's own words for why the response has this status."),
    Field(
        "flags",
        "%RESPONSE_FLAGS%",
        "Envoy's response flags, such as `UF` for a failed connection to the upstream.",
    ),
    Field("route", "%ROUTE_NAME%", "Name of the route."),
    Field("upstream", "%UPSTREAM_CLUSTER%", "Name of the upstream."),
    Field("endpoint", "%UPSTREAM_HOST%", "Address of the upstream's endpoint that received the request."),
    Field(
        "duration_ms",
        "%DURATION%",
        "Milliseconds from the first byte of the request to the last of the response.",
    ),
    Field("bytes_received", "%BYTES_RECEIVED%", "Bytes of the request's body."),
    Field("bytes_sent", "%BYTES_SENT%", "Bytes of the response's body."),
    Field(
        "client",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "Address of the client; behind `trusted_proxies`, the address that those proxies forwarded.",
    ),
    Field("consumer", f"%DYNAMIC_METADATA({NAMESPACE}:consumer)%", "Name of the consumer."),
    Field("plan", f"%DYNAMIC_METADATA({NAMESPACE}:plan)%", "Name of the consumer's plan."),
    Field(
        "authenticated_by",
        f"%DYNAMIC_METADATA({NAMESPACE}:method)%",
        "How the caller was authenticated: `oidc`, `mtls`, `jwt`, `api_key` or `basic_auth`, joined by `+` if several were required.",
    ),
    Field(
        "request_id",
        "%REQ(X-REQUEST-ID)%",
        "Identifier of the request, the same as in errors and at the upstream.",
    ),
)


def access_log() -> accesslog_pb2.AccessLog:
    """Return the log on standard output."""
    struct = struct_pb2.Struct()
    struct.update({field.name: field.operator for field in FIELDS})
    log_format = substitution_format_string_pb2.SubstitutionFormatString(
        json_format=struct, omit_empty_values=True
    )
    config = packed(stream_pb2.StdoutAccessLog(log_format=log_format))
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.stdout", typed_config=config)
