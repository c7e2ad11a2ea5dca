"""Every resource name. A name holds no position, so that reordering renames nothing and re-warms nothing."""

from __future__ import annotations

from filters.policy import cluster_of_url as cluster_of_url
from filters.policy_server import POLICY_SERVER as POLICY_SERVER
from filters.reasons import BAD_REQUEST, METHOD_NOT_ALLOWED, REJECTED
from filters.reasons import NOT_FOUND as NOT_FOUND


def cluster(upstream: str) -> str:
    """The cluster of an upstream: one for each upstream, whoever routes to it."""
    return upstream


def listener(name: str) -> str:
    """The TCP listener."""
    return name


def quic(name: str) -> str:
    """The UDP listener beside it, for HTTP/3."""
    return f"{name}/quic"


def routes(listener_name: str) -> str:
    """The route configuration of a listener, TCP and QUIC alike."""
    return listener_name


def certificate(secret: str) -> str:
    """The SDS secret of a certificate with its key."""
    return secret


def upstream_ca(upstream: str) -> str:
    """The SDS secret of the authorities that an upstream's certificate must come from."""
    return f"upstream/{upstream}/ca"


def client_ca(listener_name: str) -> str:
    """The SDS secret of the authorities that client certificates must come from."""
    return f"listener/{listener_name}/client-ca"


def method_not_allowed(route: str) -> str:
    """The route that answers 405 for a route; local replies recognize it by this prefix."""
    return f"{METHOD_NOT_ALLOWED}{route}"


def rejected(route: str) -> str:
    """The route that answers 503 in the place of one that Envoy rejects; local replies recognize it by this prefix."""
    return f"{REJECTED}{route}"


REDIRECT_TO_HTTPS = "redirect-to-https"
BAD_PATH = f"{BAD_REQUEST}path"
"""The route that refuses dot segments with parameters; local replies recognize it."""
BAD_AUTHORITY = f"{BAD_REQUEST}authority"
"""The route that refuses an authority with a comma; local replies recognize it."""


def route_origin(route: str) -> tuple[str, ...]:
    """Where in the gateway a single route of Envoy comes from, as a path; empty for one that the gateway adds itself."""
    own = route.removeprefix(METHOD_NOT_ALLOWED).removeprefix(REJECTED)
    return (
        ()
        if own in (NOT_FOUND, BAD_PATH, BAD_AUTHORITY, REDIRECT_TO_HTTPS)
        else ("routes", own.partition("/")[0])
    )


def origin(type_name: str, resource: str) -> tuple[str, ...]:
    """Where in the gateway a resource comes from, as a path; empty where no single object made it."""
    first, slash, rest = resource.partition("/")
    if type_name in ("listener", "route"):
        return ("listeners", first)
    if not slash and type_name in ("cluster", "endpoint"):
        return ("upstreams", resource)
    if type_name == "secret":
        owner = {"upstream": "upstreams", "listener": "listeners"}.get(first) if slash else "secrets"
        return (owner, rest.partition("/")[0] if slash else resource) if owner else ()
    return ()
