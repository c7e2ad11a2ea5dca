"""The specs of routes (Gateway API 1.7, standard channel) as frozen values, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from filters.language import option
from xds_server.gateway_api.specs import LocalReference, ParentReference


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMatch:
    """A condition on the path."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = option("The kind.", default="PathPrefix")
    value: str = option("The path.", default="/")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueMatch:
    """A condition on a header or a query parameter."""

    type: Literal["Exact", "RegularExpression"] = option("The kind.", default="Exact")
    name: str = option("The name.")
    value: str = option("The value.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpMatch:
    """Conditions on a request; all of them must hold."""

    path: PathMatch = option("The path.", default=PathMatch())
    headers: tuple[ValueMatch, ...] = option("Headers.", default=())
    query_params: tuple[ValueMatch, ...] = option("Query parameters.", default=(), key="queryParams")
    method: str | None = option("The method.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header."""

    name: str = option("The name.")
    value: str = option("The value.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderFilter:
    """Changes of headers."""

    set: tuple[Header, ...] = option("Replaced.", default=())
    add: tuple[Header, ...] = option("Added.", default=())
    remove: tuple[str, ...] = option("Removed.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class PathModifier:
    """A change of the path."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"] = option("The kind.")
    replace_full_path: str | None = option("The new path.", default=None, key="replaceFullPath")
    replace_prefix_match: str | None = option("The new prefix.", default=None, key="replacePrefixMatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectFilter:
    """A redirect of the client."""

    scheme: Literal["http", "https"] | None = option("The scheme.", default=None)
    hostname: str | None = option("The host.", default=None)
    path: PathModifier | None = option("The path.", default=None)
    port: int | None = option("The port.", default=None, minimum=1, maximum=65535)
    status_code: Literal[301, 302, 303, 307, 308] = option("The status.", default=302, key="statusCode")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteFilter:
    """A change of host and path towards the backend."""

    hostname: str | None = option("The host.", default=None)
    path: PathModifier | None = option("The path.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendObject:
    """A backend without a weight."""

    group: str = option("The API group; empty for the core.", default="")
    kind: str = option("The kind.", default="Service")
    name: str = option("The name.")
    namespace: str | None = option("The namespace; default the route's own.", default=None)
    port: int | None = option("The port of a Service.", default=None, minimum=1, maximum=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fraction:
    """A share."""

    numerator: int = option("Its part …", minimum=0)
    denominator: int = option("… of this.", default=100, minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorFilter:
    """A copy of requests to another backend."""

    backend_ref: BackendObject = option("The other backend.", key="backendRef")
    percent: int | None = option("Share of the requests.", default=None, minimum=0, maximum=100)
    fraction: Fraction | None = option("Share of the requests.", default=None)

    @property
    def share(self) -> float:
        """The share in percent."""
        if self.fraction is not None:
            return 100 * self.fraction.numerator / self.fraction.denominator
        return 100.0 if self.percent is None else float(self.percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsFilter:
    """CORS."""

    allow_origins: tuple[str, ...] = option("Origins.", default=(), key="allowOrigins")
    allow_credentials: bool = option("Cookies.", default=False, key="allowCredentials")
    allow_methods: tuple[str, ...] = option("Methods.", default=(), key="allowMethods")
    allow_headers: tuple[str, ...] = option("Request headers.", default=(), key="allowHeaders")
    expose_headers: tuple[str, ...] = option("Response headers.", default=(), key="exposeHeaders")
    max_age: int = option("Seconds for which a browser keeps the answer.", default=5, key="maxAge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter of a rule or of a backend. `type` says which of the other fields it has."""

    type: str = option("The kind.")
    request_header_modifier: HeaderFilter | None = option("", default=None, key="requestHeaderModifier")
    response_header_modifier: HeaderFilter | None = option("", default=None, key="responseHeaderModifier")
    request_mirror: MirrorFilter | None = option("", default=None, key="requestMirror")
    request_redirect: RedirectFilter | None = option("", default=None, key="requestRedirect")
    url_rewrite: RewriteFilter | None = option("", default=None, key="urlRewrite")
    cors: CorsFilter | None = option("", default=None)
    extension_ref: LocalReference | None = option("", default=None, key="extensionRef")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRef:
    """A backend with its weight and filters."""

    group: str = option("The API group; empty for the core.", default="")
    kind: str = option("The kind.", default="Service")
    name: str = option("The name.")
    namespace: str | None = option("The namespace; default the route's own.", default=None)
    port: int | None = option("The port of a Service.", default=None, minimum=1, maximum=65535)
    weight: int = option("Its share.", default=1, minimum=0, maximum=1_000_000)
    filters: tuple[Filter, ...] = option("Filters of this backend alone.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Timeouts, as durations of GEP-2257."""

    request: str | None = option("Of the whole request; 0s: none.", default=None)
    backend_request: str | None = option(
        "Of each try at a backend; 0s: none.", default=None, key="backendRequest"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySpec:
    """Retries."""

    codes: tuple[int, ...] = option("Statuses to retry.", default=())
    attempts: int | None = option("Retries at most.", default=None)
    backoff: str | None = option("Wait before a retry.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRule:
    """A rule of an HTTPRoute."""

    name: str | None = option("Its name.", default=None)
    matches: tuple[HttpMatch, ...] = option("Conditions; one of them must hold.", default=())
    filters: tuple[Filter, ...] = option("Filters.", default=())
    backend_refs: tuple[BackendRef, ...] = option("Backends.", default=(), key="backendRefs")
    timeouts: Timeouts = option("Timeouts.", default=Timeouts())
    retry: RetrySpec | None = option("Retries.", default=None)
    session_persistence: Any = option(
        "Session persistence (experimental).", default=None, key="sessionPersistence"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRouteSpec:
    """HTTPRoute."""

    parent_refs: tuple[ParentReference, ...] = option("Gateways.", default=(), key="parentRefs")
    use_default_gateways: str | None = option(
        "Default Gateways (experimental).", default=None, key="useDefaultGateways"
    )
    hostnames: tuple[str, ...] = option("Hosts.", default=())
    rules: tuple[HttpRule, ...] = option("Rules.", default=(HttpRule(),))


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodMatch:
    """A condition on the method of a call."""

    type: Literal["Exact", "RegularExpression"] = option("The kind.", default="Exact")
    service: str | None = option("The service.", default=None)
    method: str | None = option("The method.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcMatch:
    """Conditions on a call; all of them must hold."""

    method: MethodMatch | None = option("The method.", default=None)
    headers: tuple[ValueMatch, ...] = option("Metadata.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcRule:
    """A rule of a GRPCRoute."""

    name: str | None = option("Its name.", default=None)
    matches: tuple[GrpcMatch, ...] = option("Conditions; one of them must hold.", default=())
    filters: tuple[Filter, ...] = option("Filters.", default=())
    backend_refs: tuple[BackendRef, ...] = option("Backends.", default=(), key="backendRefs")
    session_persistence: Any = option(
        "Session persistence (experimental).", default=None, key="sessionPersistence"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcRouteSpec:
    """GRPCRoute."""

    parent_refs: tuple[ParentReference, ...] = option("Gateways.", default=(), key="parentRefs")
    use_default_gateways: str | None = option(
        "Default Gateways (experimental).", default=None, key="useDefaultGateways"
    )
    hostnames: tuple[str, ...] = option("Hosts.", default=())
    rules: tuple[GrpcRule, ...] = option("Rules.", default=(GrpcRule(),))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRule:
    """A rule of a TLSRoute, TCPRoute or UDPRoute."""

    name: str | None = option("Its name.", default=None)
    backend_refs: tuple[BackendRef, ...] = option("Backends.", default=(), key="backendRefs")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsRouteSpec:
    """TLSRoute."""

    parent_refs: tuple[ParentReference, ...] = option("Gateways.", default=(), key="parentRefs")
    use_default_gateways: str | None = option(
        "Default Gateways (experimental).", default=None, key="useDefaultGateways"
    )
    hostnames: tuple[str, ...] = option("Server names.", default=())
    rules: tuple[StreamRule, ...] = option("The rule; there is one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRouteSpec:
    """TCPRoute or UDPRoute."""

    parent_refs: tuple[ParentReference, ...] = option("Gateways.", default=(), key="parentRefs")
    use_default_gateways: str | None = option(
        "Default Gateways (experimental).", default=None, key="useDefaultGateways"
    )
    rules: tuple[StreamRule, ...] = option("The rule; there is one.")

    @property
    def hostnames(self) -> tuple[str, ...]:
        """None: such connections name no host."""
        return ()
