"""The fields of the access log, the conditions under which a request is logged, and Envoy's names for both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from filters.language import Percent, option
from filters.model.geoip import ASN_HEADER, COUNTRY_HEADER
from filters.model.identity import NAMESPACE

METADATA = "xds.access_log"
"""The namespace of the conditions in the metadata of a route."""
VERSION_METADATA = "xds.gateway"
"""The namespace of the dynamic metadata with the version of the gateway."""
WAF = "xds.waf"
"""The namespace of the dynamic metadata of the web application firewall, written by processors."""
STATUS = r"[1-5]xx|[1-5][0-9][0-9]"
"""A status or a class of statuses, as a regular expression."""
LONGEST_VALUE = 1024
"""Characters of a value that the client chose; the rest is cut off."""


class Field(NamedTuple):
    """One field: its name, Envoy's command operator for its value, and its meaning.

    A field without a value is left out of JSON. `default` is true if the log has it unless `fields` says otherwise.
    `streams` is true if it also exists for the connections of stream routes.
    """

    name: str
    operator: str
    meaning: str
    default: bool = True
    streams: bool = False


FIELDS = (
    Field("time", "%START_TIME%", "When the request began, in UTC (RFC 3339).", streams=True),
    Field("method", "%REQ(:METHOD)%", "HTTP method."),
    Field(
        "host",
        f"%CEL(request.host.contains('@') ? 'invalid' : request.host):{LONGEST_VALUE}%",
        "Host that the client asked for; `invalid` if it contains an `@`, because a password may stand before that.",
    ),
    Field(
        "path",
        f"%PATH(NQ:ORIG_OR_PATH):{LONGEST_VALUE}%",
        "Path that the client asked for, without its query, which may contain secrets. `query` names parameters to log.",
    ),
    Field("protocol", "%PROTOCOL%", "HTTP version of the client's connection, such as `HTTP/2`."),
    Field("status", "%RESPONSE_CODE%", "HTTP status of the response; 0 if the client left before it."),
    Field(
        "reason",
        "%RESP(X-GATEWAY-REASON)%",
        "Why the gateway itself responded: a name of [reasons](reasons.md).",
    ),
    Field(
        "details",
        "%RESPONSE_CODE_DETAILS%",
        "Envoy's own words for why the response has this status.",
        streams=True,
    ),
    Field(
        "flags",
        "%RESPONSE_FLAGS%",
        "Envoy's response flags, such as `UF` for a failed connection to the upstream; `-` if there are none.",
        streams=True,
    ),
    Field(
        "flags_text",
        "%RESPONSE_FLAGS_LONG%",
        "The same in words, such as `UpstreamConnectionFailure`.",
        streams=True,
    ),
    Field("route", "%ROUTE_NAME%", "Name of the route.", streams=True),
    Field("upstream", "%UPSTREAM_CLUSTER%", "Name of the upstream.", streams=True),
    Field(
        "endpoint",
        "%UPSTREAM_HOST%",
        "Address of the upstream's endpoint that received the request.",
        streams=True,
    ),
    Field(
        "duration_ms",
        "%DURATION%",
        "Milliseconds from the first byte of the request to the last of the response.",
        streams=True,
    ),
    Field(
        "gateway_us",
        "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:us)%",
        "Microseconds from the first byte of the request until the gateway sends it to the upstream: the time of its policies.",
    ),
    Field(
        "upstream_us",
        "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%",
        "Microseconds from the first byte sent to the upstream to the last of its response.",
    ),
    Field("bytes_received", "%BYTES_RECEIVED%", "Bytes of the request's body.", streams=True),
    Field("bytes_sent", "%BYTES_SENT%", "Bytes of the response's body.", streams=True),
    Field(
        "client",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "Address of the client; behind `trusted_proxies`, the address that those proxies forwarded.",
        streams=True,
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
        "%REQ(X-REQUEST-ID):128%",
        "Identifier of the request, the same as in errors and at the upstream.",
    ),
    Field("trace_id", "%TRACE_ID%", "Identifier of the trace, if the gateway has `tracing`."),
    Field(
        "version",
        f"%DYNAMIC_METADATA({VERSION_METADATA}:version)%",
        "Version of the gateway: a hash of everything that it serves. `xds status` shows the newest one.",
    ),
    Field(
        "partial",
        "%RESP(X-GATEWAY-PARTIAL)%",
        "Optional calls of an [aggregate](aggregates.md) that failed, so that their answers are missing.",
    ),
    Field(
        "waf_rules",
        f"%DYNAMIC_METADATA({WAF}:rules)%",
        "Ids of the rules of the [web application firewall](waf.md) that matched, joined by commas, at most 20.",
    ),
    Field("waf_score", f"%DYNAMIC_METADATA({WAF}:score)%", "The sum of their scores."),
    Field(
        "waf_outcome",
        f"%DYNAMIC_METADATA({WAF}:outcome)%",
        "What followed: `blocked`, `detected` or `passed`.",
    ),
    Field(
        "commit",
        f"%DYNAMIC_METADATA({VERSION_METADATA}:commit)%",
        "The commit that the gateway is from, if it is in git.",
        default=False,
    ),
    Field("user_agent", f"%REQ(USER-AGENT):{LONGEST_VALUE}%", "The client's own name.", default=False),
    Field(
        "attempts",
        "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "Requests to the upstream, with retries.",
        default=False,
    ),
    Field(
        "country",
        f"%REQ({COUNTRY_HEADER.upper()})%",
        "Country of the client (ISO 3166-1 alpha-2). It needs `geoip.countries`.",
        default=False,
    ),
    Field(
        "asn",
        f"%REQ({ASN_HEADER.upper()})%",
        "Number of the autonomous system of the client. It needs `geoip.asns`.",
        default=False,
    ),
    Field("grpc_status", "%GRPC_STATUS%", "gRPC status in words; `-` if there is none.", default=False),
    Field(
        "tls_version",
        "%DOWNSTREAM_TLS_VERSION%",
        "TLS version of the client's connection.",
        default=False,
        streams=True,
    ),
    Field(
        "server_name",
        "%REQUESTED_SERVER_NAME%",
        "Server name (SNI) that the client asked for.",
        default=False,
        streams=True,
    ),
    Field(
        "certificate",
        "%DOWNSTREAM_PEER_SUBJECT%",
        "Subject of the client's certificate.",
        default=False,
        streams=True,
    ),
    Field(
        "upstream_error",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "Why TLS to the upstream failed.",
        default=False,
        streams=True,
    ),
    Field(
        "unique_id",
        "%UNIQUE_ID%",
        "Envoy's own identifier of the request, which no client can choose.",
        default=False,
        streams=True,
    ),
    Field(
        "hostname", "%HOSTNAME%", "Host name of the machine on which Envoy runs.", default=False, streams=True
    ),
)
BY_NAME = {field.name: field for field in FIELDS}
DEFAULT_FIELDS = tuple(field.name for field in FIELDS if field.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConditions:
    """Requests that are logged: those that meet one of these conditions. Without conditions, all are logged."""

    statuses: tuple[str, ...] = option(
        "Statuses such as `503`, or classes such as `5xx`.",
        default=(),
        pattern=STATUS,
        shape="a status such as 503, or a class such as 5xx",
        narrows=True,
    )
    slower_than: timedelta | None = option(
        "Requests that took longer than this.", default=None, minimum=0.001, narrows=True
    )
    sample: Percent | None = option("This share of all requests.", default=None)

    @property
    def any(self) -> bool:
        """True if there is a condition."""
        return bool(self.statuses or self.slower_than is not None or self.sample is not None)


_OF_ROUTE = f"xds.route_metadata.filter_metadata['{METADATA}']"
CONDITION = (
    f"!has(xds.route_metadata) || !('{METADATA}' in xds.route_metadata.filter_metadata)"
    f" || double(request.time.getMilliseconds()) < {_OF_ROUTE}.sample"
    f" || double(response.code) in {_OF_ROUTE}.statuses || double(response.code / 100) in {_OF_ROUTE}.classes"
    f" || ({_OF_ROUTE}.slower_than != '' && request.duration > duration({_OF_ROUTE}.slower_than))"
)
"""The CEL condition of a log if some route has conditions of its own. Numbers of a Struct are doubles."""

UNCOUNTED = "xds.metering"
"""The namespace in the metadata of routes whose requests are not counted as usage."""
COUNTED = f"!has(xds.route_metadata) || !('{UNCOUNTED}' in xds.route_metadata.filter_metadata)"
"""The CEL condition of the usage log if some route is not counted."""
